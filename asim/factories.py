"""How an Experiment makes entities: SmartSim's factory methods. No I/O beyond looking up an executable."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from .config import Config
from .entities import Ensemble, Model, Orchestrator
from .entities.ensemble import Placement
from .errors import ConfigError, ConfigTypeError, MissingFileError, allowed
from .launchers.base import KNOWN
from .launching import Launching
from .policies import Retry
from .settings.base import RunSettings
from .settings.batch import BatchSettings
from .settings.container import Container
from .settings.script import Pack
from .strategies import Strategy
from .units import Seconds

Params = Mapping[str, object] | str | Sequence[str] | None


class Factories:
    """The ``create_*`` methods of :class:`~asim.Experiment`."""

    config: Config
    _launching: Launching
    _numbers = 0

    @property
    def launcher(self) -> str:
        """The launcher's name."""
        return self._launching.capabilities.launcher

    def create_run_settings(
        self,
        exe: str | os.PathLike[str],
        exe_args: str | Sequence[str] | None = None,
        run_command: str = "auto",
        run_args: Mapping[str, Any] | None = None,
        env_vars: Mapping[str, Any] | None = None,
        container: Container | None = None,
        **kwargs: Any,
    ) -> RunSettings:
        """What a model runs, in the words of a run command.

        :param exe: executable: a word that is looked for in ``PATH``, or a path.
        :param exe_args: its arguments; a str is split at blanks, a list is taken as it is.
        :param run_command: "auto": the first that this launcher's machine has (local: none); "" for none; or e.g.
            "mpiexec". A word asim does not know is used literally with ``run_args``.
        :param run_args: arguments of the run command.
        :param env_vars: environment variables.
        :param container: e.g. a :class:`~asim.Singularity`.
        :param kwargs: ``timeout``, ``retries``, and what the settings class of the run command takes.
        :raises MissingFileError: the executable or the run command does not exist on this machine.
        :raises ConfigError: anything else that could not work.
        """
        from .settings.select import run_settings_class

        command = self._run_command(run_command)
        kind = run_settings_class(self.launcher, command)
        if kind is RunSettings:  # the others have a run command of their own
            kwargs["run_command"] = command
        settings = kind(exe, exe_args, run_args=run_args, env_vars=env_vars, container=container, **kwargs)
        if kind is not RunSettings and "/" in command:
            settings.run_command = command
        if self._launching.capabilities.local_programs and container is None and self._which(settings.exe) is None:
            raise MissingFileError(allowed("exe", settings.exe, "no such executable file here or in PATH"))
        return settings

    def _run_command(self, word: str) -> str:
        if not isinstance(word, str):
            raise ConfigTypeError(allowed("run_command", word, "must be a str"))
        if word.lower() == "auto":
            from .settings.select import candidates

            words = candidates(self.launcher) if self.launcher in KNOWN else ("",)
            if self._launching.far is not None:
                return words[0]  # what is on this machine says nothing of that one
            return next((one for one in words if not one or self._which(one)), words[0] if words else "")
        if word and self._launching.capabilities.local_programs and self._which(word) is None:
            raise MissingFileError(allowed("run_command", word, "no such executable file here or in PATH"))
        return word

    def _which(self, word: str) -> str | None:
        path = os.path.join(self.config.cwd, word) if "/" in word else word
        return shutil.which(path, path=self.config.search_path)

    def create_batch_settings(
        self,
        nodes: int = 1,
        time: str = "",
        queue: str = "",
        account: str = "",
        batch_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> BatchSettings:
        """What a scheduler is asked for.

        :param nodes: number of nodes.
        :param time: walltime ``HH:MM:SS``.
        :param queue: queue or partition.
        :param account: account or project.
        :param batch_args: further arguments of the submit command.
        :raises UnsupportedError: this launcher has no batch jobs.
        """
        from .settings.select import batch_settings_class

        kind = batch_settings_class(self.launcher)
        words = {"nodes": nodes, "time": time, "queue": queue, "account": account}
        given: dict[str, Any] = {key: value for key, value in words.items() if value}
        return kind(batch_args=batch_args, **given, **kwargs)

    def create_model(
        self,
        name: str,
        run_settings: RunSettings,
        params: Params = None,
        path: str | os.PathLike[str] | None = None,
        enable_key_prefixing: bool = True,
        batch_settings: BatchSettings | None = None,
        *,
        params_as_args: Params = None,
        timeout: Seconds | None = None,
        retries: int | Retry | None = None,
    ) -> Model:
        """One simulation or application; see :class:`~asim.Model`."""
        return Model(
            name,
            params,
            run_settings,
            path,
            params_as_args,
            batch_settings,
            enable_key_prefixing=enable_key_prefixing,
            timeout=timeout,
            retries=retries,
        )

    def create_ensemble(
        self,
        name: str | BatchSettings | None = None,
        params: Params = None,
        batch_settings: BatchSettings | None = None,
        run_settings: RunSettings | None = None,
        replicas: int | None = None,
        perm_strategy: str | Strategy | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        perm_strat: str | Strategy | None = None,
        params_as_args: Params = None,
        n_models: int | None = None,
        seed: int | None = None,
        fail_fast: bool = False,
        pack: Pack = "job",
        placement: Placement = "step",
        timeout: Seconds | None = None,
        retries: int | Retry | None = None,
    ) -> Ensemble:
        """Many models; see :class:`~asim.Ensemble`.

        :param name: default "ensemble", "ensemble_1" …; batch settings may stand here, in SmartSim's short form.
        :param perm_strategy: also spelled ``perm_strat``.
        """
        if isinstance(name, BatchSettings):
            if batch_settings is not None:
                raise ConfigError(allowed("batch_settings", batch_settings, "was given already, as the first argument"))
            name, batch_settings = None, name
        if perm_strategy is not None and perm_strat is not None and perm_strategy is not perm_strat:
            raise ConfigError(allowed("perm_strat", perm_strat, "is another word for perm_strategy; give one of them"))
        return Ensemble(
            self._next_name() if name is None else name,
            params,
            path,
            params_as_args,
            batch_settings,
            run_settings,
            perm_strategy or perm_strat or "all_perm",
            replicas=replicas,
            n_models=n_models,
            seed=seed,
            fail_fast=fail_fast,
            pack=pack,
            placement=placement,
            timeout=timeout,
            retries=retries,
        )

    def create_database(
        self,
        port: int = 6379,
        path: str | os.PathLike[str] | None = None,
        db_nodes: int = 1,
        batch: bool = False,
        hosts: str | Sequence[str] | None = None,
        run_command: str = "auto",
        interface: str | Sequence[str] = "lo",
        account: str | None = None,
        time: str | None = None,
        queue: str | None = None,
        single_cmd: bool = True,
        db_identifier: str = "orchestrator",
        **kwargs: Any,
    ) -> Orchestrator:
        """A database to deploy; see :class:`~asim.Orchestrator`.

        :param path: default ``<experiment>/<db_identifier>``.
        :param kwargs: the other arguments of :class:`~asim.Orchestrator`, and options of Redis.
        """
        if kwargs.get("launcher", self.launcher) != self.launcher:
            what = f"a database is started by its experiment's own launcher, which is {self.launcher}"
            raise ConfigError(allowed("launcher", kwargs["launcher"], what))
        kwargs.pop("launcher", None)
        if run_command == "auto" and self.launcher != "local":
            run_command = self._run_command(run_command)
        return Orchestrator(
            path,
            port,
            interface,
            self.launcher,
            run_command,
            db_nodes,
            batch,
            hosts,
            account,
            time,
            single_cmd=single_cmd,
            queue=queue,
            db_identifier=db_identifier,
            **kwargs,
        )

    def _next_name(self) -> str:
        number, self._numbers = self._numbers, self._numbers + 1
        return f"ensemble_{number}" if number else "ensemble"
