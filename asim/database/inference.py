"""What a node does so that a server's models can be run: the workers' way in, and the workers."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ..config import Config
from ..errors import AsimError
from .config import NodeConfig
from .security import worker_rule
from .talk import Talk

if TYPE_CHECKING:
    from ..engine.supervisor import Supervisor

LONGEST_SOCKET = 107
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "GLOG_minloglevel": "2", "PYTHONWARNINGS": "ignore", "OPENBLAS_NUM_THREADS": "1"}
"""Variables of workers, unless they have values already: no chatter in the log, and no threads for numpy."""


class Inference:
    """The workers of one shard, from the time before it starts to its end.

    :param config: the deployment.
    :param home: the shard's directory, private to this user.
    """

    def __init__(self, config: NodeConfig, shard: int, home: str) -> None:
        self._config, self._shard = config, shard
        self._password = secrets.token_hex(32)
        self._own = ""  # a directory for the socket alone
        self.socket = config.socket or self._private_socket(home)
        self._supervisor: Supervisor | None = None

    def _private_socket(self, home: str) -> str:
        """A path for a socket that only this user reaches: in the shard's directory, if sockets can be there."""
        path = f"{home}/workers.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET and _can_have_sockets(path):
            return path
        self._own = tempfile.mkdtemp(prefix="asim-workers-")
        path = f"{self._own}/sock"
        if len(os.fsencode(path)) > LONGEST_SOCKET:
            self.stop()
            what = (
                f"neither this directory nor {path} will do for a socket, whose path has {LONGEST_SOCKET} bytes at most"
            )
            raise AsimError(f"{home}: {what}; set TMPDIR to a short path")
        return path

    def told(self, config: NodeConfig) -> NodeConfig:
        """The configuration of a server that is to have workers."""
        words = ("WORKERS", "MODEL_EXECUTION_TIMEOUT", str(config.model_execution_timeout), *config.module_args)
        told = replace(config, module_args=words)
        return told if config.socket else replace(told, socket=self.socket, socket_permissions=700)

    def introduce(self, talk: Talk) -> None:
        """Let workers in.

        :raises Refused: the server does not want that.
        """
        talk("ACL", "SETUSER", *worker_rule(self._password))

    def start(self, cpus: Collection[int]) -> None:
        """Begin to listen for what the server wants. (The server may run for weeks and never want anything.)

        :param cpus: what the server is pinned to, and so are its workers; or nothing.
        """
        from ..engine.supervisor import Supervisor, Wanted

        config = self._config
        tasks = config.workers_per_device * config.threads_per_queue
        intra = config.intra_op_threads or max(1, len(cpus or _usable()) // tasks)
        environ = {**QUIET, **Config.from_env().environ, "OMP_NUM_THREADS": str(intra)}
        wanted = Wanted(
            socket=self.socket,
            secret=config.secret,
            password=self._password,
            log=config.workers_log(self._shard),
            environ=environ,
            per_device=config.workers_per_device,
            threads=config.threads_per_queue,
            inter_op=config.inter_op_threads,
            intra_op=intra,
            memory=config.worker_memory,
            cpus=sorted(cpus),
        )
        self._supervisor = Supervisor(wanted)
        self._supervisor.listen()

    def tend(self) -> float:
        """See to the workers; seconds until that should be done again."""
        return self._supervisor.tend() if self._supervisor else 3600.0

    def stop(self) -> None:
        """End the workers, and leave nothing behind."""
        if self._supervisor:
            self._supervisor.stop()
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)


def _can_have_sockets(path: str) -> bool:
    """Whether a socket can be here: not every network's file system has them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(path)
        except OSError:
            return False
        finally:
            with suppress(OSError):
                os.unlink(path)
    return True


def _usable() -> Collection[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
