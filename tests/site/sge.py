"""A private Grid Engine in virtual hosts: the master in ``h1``, an execution daemon in each. Jobs run as root.

By hand: ``python -m tests.site.sge DIRECTORY [COUNT]``
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.conftest import missing
from tests.servers import free_port, until
from tests.site.daemons import READY_WITHIN, kill_jobs, leave_on_sigterm, stay
from tests.site.hosts import VirtualHosts, need_hosts

PROGRAMS = Path("/usr/lib/gridengine")
SHARE = Path("/usr/share/gridengine")
COMMANDS = ("qsub", "qstat", "qacct", "qdel", "qconf", "qhost", "qmod", "qhold", "qrls", "qalter", "qrsh")
PE = """\
pe_name            mpi
slots              999
user_lists         NONE
xuser_lists        NONE
start_proc_args    NONE
stop_proc_args     NONE
allocation_rule    $round_robin
control_slaves     TRUE
job_is_first_task  FALSE
urgency_slots      min
accounting_summary FALSE
qsort_args         NONE
"""


class SgeSite(VirtualHosts):
    """One cell, ready on entry and gone on exit; 16 slots in each host.

    Its commands are in ``bin`` of the directory (first in PATH): each runs in ``h1``, from wherever it is called.
    """

    def __init__(self, directory: Path, count: int = 2) -> None:
        super().__init__(directory, count, ssh=False)
        ports = {"SGE_QMASTER_PORT": str(free_port()), "SGE_EXECD_PORT": str(free_port())}
        self.own = {"SGE_ROOT": str(directory), "SGE_CELL": "asim", "SGE_CLUSTER_NAME": "asim", **ports}
        self.own["SGE_ARCH"] = "lx-amd64"
        self.env |= {**self.own, "PATH": f"{directory}/bin:{PROGRAMS}:{self.env['PATH']}"}

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._cell()
            self._master()
            self._queue()
            for name in self.names:
                self.start(f"execd-{name}", str(PROGRAMS / "sge_execd"), prefix=self.inside(name), SGE_ND="1")
            until(self._usable, READY_WITHIN, "the execution daemons")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if "qmaster" in self.running and self.running["qmaster"].poll() is None:
                self.clear()
                self.run("qconf", "-ke", "all", check=False)
                self.run("qconf", "-km", check=False)
        finally:
            super().__exit__()
            kill_jobs(self.directory, "JOB_ID=", "sge_shepherd")

    def clear(self) -> None:
        """Delete all jobs and wait until none is left."""
        self.run("qdel", "-f", "-u", "*", check=False)
        until(lambda: not self.run("qstat", "-u", "*").stdout.strip(), READY_WITHIN, "the end of all jobs")

    def down(self) -> None:
        """Stop the master; jobs go on."""
        self.stop("qmaster", 20)

    def up(self) -> None:
        """Start the master (again), and wait until it answers."""
        self.start("qmaster", str(PROGRAMS / "sge_qmaster"), prefix=self.inside("h1"), SGE_ND="1")
        self.ready("qconf", "-sh", what="qmaster")

    def configure(self, **values: object) -> None:
        """Change the cell's configuration."""
        text = _set(self.run("qconf", "-sconf").stdout, {name: str(value) for name, value in values.items()})
        (self.directory / "changed").mkdir(exist_ok=True)
        file = self.directory / "changed" / "global"  # the file's name says which configuration it is
        file.write_text(text)
        self.run("qconf", "-Mconf", str(file))

    # -- how it is made

    def _cell(self) -> None:
        d = self.directory
        for name in ("asim/common", "spool/qmaster/job_scripts", "spool/execd", "spool/db", "bin"):
            (d / name).mkdir(parents=True, exist_ok=True)
        for name in ("lib", "util", "utilbin"):
            (d / name).symlink_to(Path("/var/lib/gridengine") / name)
        for name in COMMANDS:
            script = d / "bin" / name
            own = " ".join(f"{key}={shlex.quote(value)}" for key, value in self.own.items())
            inside = shlex.join([*self.inside("h1"), str(PROGRAMS / name)])
            script.write_text(f'#!/bin/sh\nexec env {own} {inside} "$@"\n')
            script.chmod(0o755)
        bootstrap = (SHARE / "default-bootstrap").read_text()
        places = {"admin_user": "root", "spooling_params": f"{d}/spool/db", "qmaster_spool_dir": f"{d}/spool/qmaster"}
        (d / "asim/common/bootstrap").write_text(_set(bootstrap, places))
        (d / "asim/common/act_qmaster").write_text("h1\n")
        reporting = "accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 joblog=false"
        wanted = {"execd_spool_dir": f"{d}/spool/execd", "min_uid": "0", "min_gid": "0", "load_report_time": "00:00:05"}
        wanted["reporting_params"] = f"{reporting} sharelog=00:00:00"
        (d / "configuration").write_text(_set((SHARE / "default-configuration").read_text(), wanted))
        self.run(str(PROGRAMS / "spoolinit"), "berkeleydb", "libspoolb", f"{d}/spool/db", "init")
        fill = str(PROGRAMS / "spooldefaults")
        self.run(fill, "configuration", str(d / "configuration"))
        self.run(fill, "complexes", str(SHARE / "util/resources/centry"))
        self.run(fill, "usersets", str(SHARE / "util/resources/usersets"))
        self.run(fill, "managers", "root")

    def _master(self) -> None:
        self.up()
        for name in self.names:
            self.run("qconf", "-ah", name, check=False)
            self.run("qconf", "-as", name, check=False)
        soon = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        self._change("-Msconf", "scheduler", _set(self.run("qconf", "-ssconf").stdout, soon))

    def _queue(self) -> None:
        self._change("-Ahgrp", "group", f"group_name @allhosts\nhostlist {' '.join(self.names)}\n")
        self._change("-Ap", "pe", PE)
        wanted = {"qname": "all.q", "hostlist": "@allhosts", "slots": "16", "pe_list": "mpi", "load_thresholds": "NONE"}
        wanted |= {"shell": "/bin/bash", "shell_start_mode": "unix_behavior", "notify": "00:00:02"}
        self._change("-Aq", "queue", _set(self.run("qconf", "-sq").stdout, wanted))

    def _change(self, option: str, name: str, text: str) -> None:
        file = self.directory / f"{name}.conf"
        file.write_text(text)
        self.run("qconf", option, str(file))

    def _usable(self) -> bool:
        """Whether every host has told its load, and no queue has a bad state."""
        lines = self.run("qstat", "-f").stdout.splitlines()
        return len([line for line in lines if re.search(r"BIP.*lx-amd64\s*$", line)]) == len(self.names)


def _set(text: str, values: dict[str, str]) -> str:
    """Lines ``name value`` with other values."""
    for name, value in values.items():
        text = re.sub(rf"^{name}[ \t].*$", f"{name} {value}", text, flags=re.MULTILINE)
    return text


@pytest.fixture(scope="session")
def sge_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SgeSite]:
    """Grid Engine, one for the whole session of this process."""
    if not (PROGRAMS / "sge_qmaster").exists():
        missing("not installed: gridengine-master")
    need_hosts()
    with SgeSite(tmp_path_factory.mktemp("sge")) as site:
        yield site


@pytest.fixture
def sge(sge_site: SgeSite) -> Iterator[SgeSite]:
    """Grid Engine with 2 hosts, empty."""
    yield sge_site
    sge_site.clear()


def main(args: list[str]) -> None:
    """Start a cell, print its environment, and stay until Ctrl-C or SIGTERM."""
    leave_on_sigterm()
    with SgeSite(Path(args[0]).absolute(), int(args[1]) if len(args) > 1 else 2) as site:
        stay({**site.own, "PATH": f"{site.directory}/bin:$PATH"})


if __name__ == "__main__":
    main(sys.argv[1:])
