"""How one process is started on each node of the allocation that we are in. Pure."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

from ..errors import ConfigError, UnsupportedError, allowed
from ..settings.mpi import Flavor

CHOICE = "ASIM_AGENT_STARTER"
"""The variable with which a user says which program it is."""
OWN = {"slurm": "srun", "pbs": "pbsdsh", "pals": "pbsdsh", "torque": "pbsdsh", "sge": "qrsh", "lsf": "blaunch"}
"""Each workload manager's own."""
OTHERS = ("ssh", "mpirun")
"""Those that need no more than names of hosts. ssh first: there is one in every PATH, and it is the same everywhere."""

_JOBS = {"slurm": ("SLURM_JOB_ID", "SLURM_JOBID"), "lsf": ("LSB_JOBID",), "sge": ("JOB_ID",)}
_JOBS |= dict.fromkeys(("pbs", "pals", "torque"), ("PBS_JOBID",))
_FILES = {"sge": "PE_HOSTFILE", "lsf": "LSB_DJOB_HOSTFILE"}
_FILES |= dict.fromkeys(("pbs", "pals", "torque"), "PBS_NODEFILE")
_SSH = ("ssh", "-n", "-T", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30")

_OF_THE_NODE = ("HOSTNAME", "HOST", "TMPDIR", "NCPUS", "PBS_NODENUM", "PBS_VNODENUM", "PBS_TASKNUM", "PBS_JOBCOOKIE",
                "PBS_MOMPORT")  # fmt: skip
_LOADER = """\
import os, sys
environ = {environ!r}
environ.update((name, os.environb[name]) for name in {own!r} if name in os.environb)
environ.update([(b"NCPUS", os.fsencode(sys.argv[1]))] if sys.argv[1] else [])
child = os.fork()
if child:
    status = os.waitpid(child, 0)[1]
    sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
os.setsid()
os.execve(sys.executable, [sys.executable] + sys.argv[2:], environ)
"""


def allocation_of(launcher: str, environ: Mapping[str, str]) -> str:
    """The id of the allocation that this environment is in; "" if it is in none, or the launcher has none."""
    return next((environ[name] for name in _JOBS.get(launcher, ()) if environ.get(name)), "")


def ways(launcher: str, environ: Mapping[str, str]) -> Sequence[str]:
    """The programs that can start agents: the first of them that is in PATH is to be used.

    :raises UnsupportedError: the launcher has no allocations.
    :raises ConfigError: the user's choice is none of them.
    """
    if launcher not in OWN:
        raise UnsupportedError(
            allowed("placement", "agent", f"only inside an allocation, and the {launcher} launcher has none")
        )
    known = (OWN[launcher],) if launcher == "slurm" else (OWN[launcher], *OTHERS)
    word = environ.get(CHOICE)
    if word and word not in known:
        raise ConfigError(allowed(CHOICE, word, f"must be {' or '.join(known)} with the {launcher} launcher"))
    return (word,) if word else known


def nodefile_of(launcher: str, environ: Mapping[str, str]) -> str:
    """The path of the file that has the allocation's hosts; "" where there is none, or it is not needed."""
    return "" if launcher == "lsf" and environ.get("LSB_MCPU_HOSTS") else environ.get(_FILES.get(launcher, ""), "")


def hosts_of(launcher: str, environ: Mapping[str, str], nodefile: str) -> list[str]:
    """The names of the hosts of an allocation, in its order and as often as each has a slot.

    :param nodefile: the text of :func:`nodefile_of`; "" where there is none.
    """
    if launcher == "lsf" and environ.get("LSB_MCPU_HOSTS"):
        return _repeated(environ["LSB_MCPU_HOSTS"].split())
    rows = [line.split() for line in nodefile.splitlines() if line.strip()]
    if launcher == "sge":  # host, slots, queue, processors
        return [row[0] for row in rows for _ in range(int(row[1]) if row[1:] and row[1].isdecimal() else 1)]
    return [row[0] for row in rows]


def _repeated(words: Sequence[str]) -> list[str]:
    """``h1 2 h2 1`` -> h1 h1 h2. A host without a number has one slot."""
    found: list[str] = []
    for word, number in zip(words, [*words[1:], ""], strict=True):
        if not word.isdecimal():
            found += [word] * (int(number) if number.isdecimal() else 1)
    return found


def loader(environ: Mapping[str, str]) -> str:
    """A program that runs another with this environment, but for what is each node's own: most ways pass on none.

    The other is in a session of its own. What kills a job's session or process group there (Grid Engine, PBS) leaves
    members, which have theirs; so it must leave the agent too, who stops them when the driver is gone.

    Its arguments: how many CPUs the node has for us, or "", and those of the interpreter for the other.
    """
    given = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
    return _LOADER.format(environ=given, own=tuple(map(os.fsencode, _OF_THE_NODE)))


def starters(
    way: str,
    launcher: str,
    allocation: str,
    nodes: int,
    hosts: Sequence[str],
    command: Sequence[str],
    path: str,
    flavor: Flavor | None = None,
) -> list[tuple[str, ...]]:
    """The commands that start ``command`` once on each node: one for all where there is one.

    :param way: one of :func:`ways`.
    :param nodes: how many nodes there are, for srun.
    :param hosts: their names, as of :func:`hosts_of`, for all others. None: the allocation is this host.
    :param command: an interpreter and its arguments.
    :param path: where :func:`loader` is, for all but srun.
    :param flavor: whose mpirun it is; None: Open MPI's.
    """
    if way == "srun":
        count = str(nodes)
        flags = ("--overlap", "--nodes", count, "--ntasks", count, "--ntasks-per-node", "1", "--cpu-bind", "none")
        quiet = ("--kill-on-bad-exit=0", "--wait=0", "--input", "none", "--job-name", "asim-agents")
        return [("srun", "--jobid", allocation, *flags, *quiet, *command)]
    words = (command[0], "-I", "-S", "-E", path)
    if not hosts:
        return [(*words, "1" if launcher == "sge" else "", *command[1:])]  # outside a parallel environment: one slot
    unique = list(dict.fromkeys(hosts))
    # PBS lists a host once for each MPI process that was asked for; how many CPUs that has is in NCPUS
    cpus = {host: "" if launcher in ("pbs", "pals") else str(hosts.count(host)) for host in unique}
    agents = {host: (*words, cpus[host], *command[1:]) for host in unique}
    if way == "mpirun":  # the same for all: what the smallest has room for
        return [(*_mpirun(unique, flavor), *agents[min(unique, key=hosts.count)])]
    if way == "pbsdsh":  # takes words as they are; the others join them for a shell
        return [("pbsdsh", "-n", str(hosts.index(host)), "--", *agents[host]) for host in unique]
    before = {"qrsh": ("qrsh", "-inherit", "-nostdin"), "blaunch": ("blaunch",), "ssh": _SSH}[way]
    return [(*before, host, *map(shlex.quote, agents[host])) for host in unique]


def _mpirun(hosts: Sequence[str], flavor: Flavor | None) -> tuple[str, ...]:
    """One process on each host, bound to nothing: its children are to have all CPUs."""
    names, count = ",".join(hosts), str(len(hosts))
    if flavor == "mpich":
        return ("mpirun", "-hosts", names, "-n", count, "-ppn", "1")
    return ("mpirun", "--host", names, "-n", count, "--map-by", "ppr:1:node", "--bind-to", "none")
