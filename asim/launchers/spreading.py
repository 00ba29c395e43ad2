"""How one process is started on each node of the allocation that we are in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UnsupportedError, allowed


def allocation_of(launcher: str, environ: Mapping[str, str]) -> str:
    """The id of the allocation that this environment is in; "" if it is in none."""
    names = {"slurm": ("SLURM_JOB_ID", "SLURM_JOBID"), "lsf": ("LSB_JOBID",), "sge": ("JOB_ID",)}
    return next((environ[name] for name in names.get(launcher, ("PBS_JOBID",)) if environ.get(name)), "")


def starters(
    launcher: str, allocation: str, nodes: int, hosts: Sequence[str], command: Sequence[str]
) -> list[tuple[str, ...]]:
    """The commands that start ``command`` once on each node: one for all where there is one.

    :param nodes: how many nodes there are.
    :param hosts: their names, one for each slot or task, where the commands need them.
    """
    unique = list(dict.fromkeys(hosts))
    if launcher == "slurm":
        count = str(nodes)
        flags = ("--overlap", "--nodes", count, "--ntasks", count, "--ntasks-per-node", "1", "--cpu-bind", "none")
        quiet = ("--kill-on-bad-exit=0", "--wait=0", "--input", "none", "--job-name", "asim-agents")
        return [("srun", "--jobid", allocation, *flags, *quiet, *command)]
    if launcher in ("pbs", "pals"):
        return [("pbsdsh", "-n", str(hosts.index(host)), "--", *command) for host in unique]
    if launcher == "sge":
        return [("qrsh", "-inherit", host, *command) for host in unique]
    if launcher == "lsf":
        return [("blaunch", host, *command) for host in unique]
    raise UnsupportedError(allowed("placement", "agent", f"the {launcher} launcher has no allocations"))


def hosts_of(launcher: str, environ: Mapping[str, str], nodefile: str) -> list[str]:
    """The names of the hosts of an allocation, as often as each has a slot.

    :param nodefile: the text of the file that PBS or Grid Engine writes; "" where there is none.
    """
    if launcher == "lsf":
        words = environ.get("LSB_MCPU_HOSTS", "").split()
        return [host for host, slots in zip(words[::2], words[1::2], strict=False) for _ in range(int(slots))]
    return [line.split()[0] for line in nodefile.splitlines() if line.strip()]


def nodefile_of(launcher: str, environ: Mapping[str, str]) -> str:
    """The path of that file; "" where there is none."""
    return environ.get({"pbs": "PBS_NODEFILE", "pals": "PBS_NODEFILE", "sge": "PE_HOSTFILE"}.get(launcher, ""), "")
