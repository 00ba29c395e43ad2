"""``asim.wlm`` against a real Slurm."""

from __future__ import annotations

import shutil
import subprocess
import sys

import anyio
import pytest

from asim.errors import AllocationError, ConfigError
from asim.wlm import detect_launcher
from asim.wlm import slurm as wlm
from tests.conftest import BACKENDS
from tests.servers import until
from tests.site.slurm import SlurmSite

pytestmark = pytest.mark.anyio
SEEN = """
import json
from asim import wlm
print(json.dumps([wlm.detect_launcher(), wlm.get_hosts(), wlm.get_queue(), wlm.get_tasks(), wlm.get_tasks_per_node()]))
"""


@pytest.fixture(params=BACKENDS[:1])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Plain asyncio: nothing here depends on the loop."""
    return request.param


@pytest.fixture
def here(slurm: SlurmSite, monkeypatch: pytest.MonkeyPatch) -> SlurmSite:
    """The private Slurm is this process's own."""
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    return slurm


def jobs(site: SlurmSite, *states: str) -> list[str]:
    """The ids that are in one of these states."""
    return site.run("squeue", "-h", "-o", "%i", "-t", ",".join(states)).stdout.split()


LIVE = ("pending", "running", "configuring")


async def test_allocation(here: SlurmSite) -> None:
    """An allocation is granted, says what it has, and is given back."""
    job = await wlm.get_allocation(nodes=2, time="00:10:00", options={"ntasks": 6, "exclusive": True})
    assert jobs(here, "running") == [job]
    said = here.run("srun", f"--jobid={job}", "-N2", "-n6", sys.executable, "-c", SEEN).stdout
    assert set(said.splitlines()) == {'["slurm", ["n1", "n2"], "debug", 6, {"n1": 3, "n2": 3}]'}
    assert here.run("squeue", "-h", "-o", "%j %l %D").stdout.split() == ["asim", "10:00", "2"]
    await wlm.release_allocation(job)
    until(lambda: not jobs(here, *LIVE), 10)


async def test_what_an_allocation_was_made_for(here: SlurmSite) -> None:
    """The numbers of tasks inside a batch job are those that were asked for."""
    script = here.directory / "seen.sh"
    script.write_text(f"#!/bin/bash\n{sys.executable} - <<'E'\n{SEEN}\nE\n")
    words = ("sbatch", "--wait", "-N2", "--ntasks-per-node=3", "-o", str(here.directory / "seen.out"), str(script))
    done = await anyio.run_process(words, env=here.env, check=False)
    text = (here.directory / "seen.out").read_text()
    assert (done.returncode, text) == (0, '["slurm", ["n1", "n2"], "debug", 6, {"n1": 3, "n2": 3}]\n')


async def test_refused_allocation(here: SlurmSite) -> None:
    """What Slurm says is in the error, and nothing is left of the request."""
    with pytest.raises(AllocationError, match="invalid partition specified: nowhere"):
        await wlm.get_allocation(options={"partition": "nowhere"})
    assert jobs(here, *LIVE) == []


async def test_cancelled_while_it_waits(here: SlurmSite) -> None:
    """A request that nobody waits for any more is withdrawn."""
    holds = await wlm.get_allocation(nodes=4, options={"exclusive": True})
    with anyio.move_on_after(1.5) as scope:
        await wlm.get_allocation(nodes=1)
    assert scope.cancelled_caught
    until(lambda: jobs(here, *LIVE) == [holds], 10)


async def test_cancelled_at_any_moment(here: SlurmSite) -> None:
    """Whenever the wait is cut short, before, while or after Slurm grants it, nothing stays allocated."""
    granted = []
    for delay in (0.0, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.04, 0.08, 0.3):
        with anyio.move_on_after(delay):
            granted.append(await wlm.get_allocation())
    assert granted
    for job in granted:
        await wlm.release_allocation(job)
    until(lambda: not jobs(here, *LIVE), 10)


async def test_release_says_why_not(here: SlurmSite) -> None:
    """An id that is none is refused before any command is run."""
    with pytest.raises(ConfigError, match="alloc_id = '1; rm'"):
        await wlm.release_allocation("1; rm")


async def test_validate(here: SlurmSite) -> None:
    """Whether nodes are there: how many, how large, in which partition, and that a drained one does not count."""
    assert await wlm.validate(nodes=4, ppn=16)
    assert await wlm.validate(nodes=4, ppn=16, partition="low")
    assert not await wlm.validate(nodes=5)
    assert not await wlm.validate(ppn=17)
    here.set_node("n2", "drain")
    assert not await wlm.validate(nodes=4)
    assert await wlm.validate(nodes=3)
    here.set_node("n2", "resume")
    with pytest.raises(ConfigError, match="partition = 'nowhere': must be one of closed, debug, low, short, spare"):
        await wlm.validate(partition="nowhere")


async def test_default_partition(here: SlurmSite) -> None:
    """The partition with the star."""
    assert await wlm.get_default_partition() == "debug"


@pytest.mark.slow
async def test_no_controller(here: SlurmSite) -> None:
    """A Slurm that is down is an error with its words, not False."""
    here.down()
    with pytest.raises(AllocationError, match="Unable to contact slurm controller"):
        await wlm.validate()
    here.up()


async def test_host_lists_as_slurm_writes_them(here: SlurmSite) -> None:
    """Our own expansion is scontrol's."""
    for text in ("n1", "n[1-3]", "n[1-3,7],login2", "r[0-1]c[08-11]", "a[1,3-4],b[001-003]", "n[9-12]"):
        said = subprocess.run(
            ["scontrol", "show", "hostnames", text], env=here.env, capture_output=True, text=True, check=True
        )
        assert wlm.expand_hosts(text) == said.stdout.split()


async def test_detected(here: SlurmSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sbatch is in PATH, and we are in no other job, it is Slurm."""
    for name in ("PBS_JOBID", "LSB_JOBID", "JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert shutil.which("sbatch")
    assert detect_launcher() == "slurm"
