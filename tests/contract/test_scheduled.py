"""Every launcher over every transport passes the same suite: real Slurm, real SSH, and the fakes of what has no package."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asim.config import Config
from asim.launchers.base import Capabilities
from asim.launchers.far import FarLauncher
from asim.launchers.local import LocalLauncher
from asim.launchers.registry import capabilities_of
from asim.launchers.scheduled import ScheduledLauncher
from asim.plan import BatchRequest, JobSpec
from asim.settings import BsubBatchSettings, QsubBatchSettings, SbatchSettings, SgeQsubBatchSettings
from asim.settings.batch import BatchSettings
from asim.settings.script import Pack
from asim.testing.contracts import LauncherContract
from asim.testing.schedulers import FakeLSF, FakePBS
from asim.transport.far import FarHost
from tests.contract.test_contracts import job
from tests.integration.ssh import SSHServer
from tests.integration.ssh import sshd as sshd
from tests.site.sge import sge as sge
from tests.site.sge import sge_site as sge_site
from tests.site.slurm import slurm as slurm
from tests.site.slurm import slurm_site as slurm_site

GRACE = 1.0
Make = Callable[[str, JobSpec], JobSpec]

pytestmark = pytest.mark.slow


def launched(word: str, environ: Mapping[str, str], place: Path, far: FarHost | None = None) -> ScheduledLauncher:
    """A launcher of a workload manager that asks often."""
    config = Config(environ=environ, cwd=str(place), python="python3")
    capabilities: Capabilities = capabilities_of(word)

    def agent() -> LocalLauncher:
        what: dict[str, Any] = {"run": "contract", "max_concurrent": None, "grace": GRACE, "detach": False}
        records = f"{place}/records"
        return (
            FarLauncher(config, far, records=records, **what) if far else LocalLauncher(config, records=records, **what)
        )

    return ScheduledLauncher(
        agent,
        capabilities,
        config,
        where=str(place),  # no other test's scheduler
        experiment=str(place),
        run="contract",
        throttle=None,
        grace=GRACE,
        min_poll=0.1,
        max_poll=1.0,
    )


def afar(word: str, environ: Mapping[str, str], place: Path, sshd: SSHServer) -> ScheduledLauncher:
    """The same over SSH; the shell's start-up file there says where the workload manager is."""
    other = {name: value for name, value in environ.items() if os.environ.get(name) != value}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in other.items()]
    (sshd.home / ".profile").write_text("".join(lines))
    return launched(word, {}, place, FarHost("127.0.0.1", sshd.options(username="root"), str(place)))


def batches(place: Path, settings: BatchSettings, pack: Pack = "separate") -> Callable[[str, str], JobSpec]:
    """Specs of batch jobs, one for each, or members of those that are submitted together."""
    together = BatchRequest(name="e", settings=settings, pack=pack, home=f"{place}/e")

    def make(name: str, kind: str) -> JobSpec:
        alone = replace(together, name=name, home=f"{place}/{name}")
        return replace(job(name, kind, place), batch=alone if pack == "separate" else together)

    return make


class TestSlurm(LauncherContract):
    """Batch jobs of a real Slurm."""

    DEADLINE = 60.0

    @pytest.fixture
    def launcher(self, slurm, tmp_path):
        """Its launcher."""
        return launched("slurm", slurm.env, tmp_path)

    @pytest.fixture
    def spec(self, tmp_path):
        """Batch jobs."""
        return batches(tmp_path, SbatchSettings(time="00:10:00"))


class TestSlurmArray(TestSlurm):
    """Tasks of arrays."""

    @pytest.fixture
    def anyio_backend(self):
        """One loop is enough for what is slow."""
        return "asyncio"

    @pytest.fixture
    def spec(self, tmp_path):
        """Members of one request."""
        return batches(tmp_path, SbatchSettings(time="00:10:00"), "array")


class TestSlurmPacked(TestSlurmArray):
    """Members of one batch job."""

    @pytest.fixture
    def spec(self, tmp_path):
        """Members of one request."""
        return batches(tmp_path, SbatchSettings(time="00:10:00"), "job")


class TestSlurmProcesses(LauncherContract):
    """What is no batch job is a process, whatever the launcher."""

    @pytest.fixture
    def launcher(self, slurm, tmp_path):
        """The same launcher."""
        return launched("slurm", slurm.env, tmp_path)

    @pytest.fixture
    def spec(self, tmp_path):
        """Processes."""
        return lambda name, kind: job(name, kind, tmp_path)


class TestFar(LauncherContract):
    """Processes of a host that is reached by SSH."""

    DEADLINE = 30.0

    @pytest.fixture
    def launcher(self, sshd: SSHServer, tmp_path):
        """A launcher of that host's processes."""
        far = FarHost("127.0.0.1", sshd.options(username="root"), str(tmp_path))
        what: dict[str, Any] = {"run": "contract", "max_concurrent": None, "grace": GRACE, "detach": False}
        return FarLauncher(Config.from_env(), far, records=f"{tmp_path}/records", **what)

    @pytest.fixture
    def spec(self, tmp_path):
        """Processes."""
        return lambda name, kind: job(name, kind, tmp_path)


class TestSlurmFromAfar(LauncherContract):
    """Batch jobs of a Slurm whose commands are at the other end of an SSH connection."""

    DEADLINE = 60.0

    @pytest.fixture
    def anyio_backend(self):
        """One loop is enough for what is slow."""
        return "asyncio"

    @pytest.fixture
    def launcher(self, slurm, sshd: SSHServer, tmp_path):
        """Its launcher."""
        return afar("slurm", {**slurm.env, "SLURM_CONF": str(slurm.conf)}, tmp_path, sshd)

    @pytest.fixture
    def spec(self, tmp_path):
        """Batch jobs."""
        return batches(tmp_path, SbatchSettings(time="00:10:00"))


class TestSGE(LauncherContract):
    """Batch jobs of a real Grid Engine."""

    DEADLINE = 120.0

    @pytest.fixture
    def anyio_backend(self):
        """One loop is enough for what is slow."""
        return "asyncio"

    @pytest.fixture
    def launcher(self, sge, tmp_path):
        """Its launcher."""
        return launched("sge", sge.env, tmp_path)

    @pytest.fixture
    def spec(self, tmp_path):
        """Batch jobs; the shell is no login shell, which would forget the environment."""
        return batches(tmp_path, SgeQsubBatchSettings(shebang="#!/bin/bash"))


class TestSGEFromAfar(TestSGE):
    """The same at the other end of an SSH connection."""

    @pytest.fixture
    def launcher(self, sge, sshd: SSHServer, tmp_path):
        """Its launcher."""
        return afar("sge", sge.env, tmp_path, sshd)


class TestFakePBS(LauncherContract):
    """Batch jobs of a PBS as it was recorded."""

    DEADLINE = 60.0

    @pytest.fixture
    def launcher(self, tmp_path):
        """Its launcher, with the fake's commands first in PATH."""
        with FakePBS(tmp_path / "pbs", poll=0.1) as fake:
            yield launched("pbs", {**os.environ, "PATH": f"{fake.bin}:{os.environ['PATH']}"}, tmp_path)

    @pytest.fixture
    def spec(self, tmp_path):
        """Batch jobs."""
        return batches(tmp_path, QsubBatchSettings(nodes=1))


class TestFakeLSF(LauncherContract):
    """Batch jobs of an LSF as it is documented."""

    DEADLINE = 60.0

    @pytest.fixture
    def launcher(self, tmp_path):
        """Its launcher, with the fake's commands first in PATH."""
        with FakeLSF(tmp_path / "lsf") as fake:
            yield launched("lsf", {**os.environ, "PATH": f"{fake.bin}:{os.environ['PATH']}"}, tmp_path)

    @pytest.fixture
    def spec(self, tmp_path):
        """Batch jobs."""
        return batches(tmp_path, BsubBatchSettings(nodes=1))


class TestFakePBSFromAfar(TestFakePBS):
    """The same at the other end of an SSH connection."""

    @pytest.fixture
    def anyio_backend(self):
        """One loop is enough for what is slow."""
        return "asyncio"

    @pytest.fixture
    def launcher(self, sshd: SSHServer, tmp_path):
        """Its launcher, with the fake's commands first in PATH."""
        with FakePBS(tmp_path / "pbs", poll=0.1) as fake:
            yield afar("pbs", {"PATH": f"{fake.bin}:{os.environ['PATH']}"}, tmp_path, sshd)


class TestFakeLSFFromAfar(TestFakeLSF):
    """The same at the other end of an SSH connection."""

    @pytest.fixture
    def anyio_backend(self):
        """One loop is enough for what is slow."""
        return "asyncio"

    @pytest.fixture
    def launcher(self, sshd: SSHServer, tmp_path):
        """Its launcher, with the fake's commands first in PATH."""
        with FakeLSF(tmp_path / "lsf") as fake:
            yield afar("lsf", {"PATH": f"{fake.bin}:{os.environ['PATH']}"}, tmp_path, sshd)
