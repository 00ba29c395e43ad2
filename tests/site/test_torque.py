"""``launcher="torque"`` with Slurm's wrappers of Torque's commands: that qsub, qstat and qdel are met by a live scheduler.

What these wrappers lack, and is proved with the fakes instead: an exit status in ``qstat -f``, so that a job whose script
was killed is told of only after a long silence; ``PBS_ARRAYID``, and names for the tasks of an array (``qdel`` of one
deletes all); SIGTERM before SIGKILL in ``qdel``; JSON, and jobs that ended some time ago.
"""

from __future__ import annotations

import anyio
import pytest

from asim import Ensemble
from tests.site.experiments import C, F, P, R, X, anyio_backend, ends, processes, state_of, until
from tests.site.torque import TorqueLab, lab

__all__ = ["anyio_backend", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
DEADLINE = 40


async def test_ends(lab: TorqueLab) -> None:
    """Members run as jobs of their own, with their environment, and end with the codes that their files tell."""
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", batch_settings=lab.qsub(time="00:10:00"), pack="separate")
        for code in (0, 3, 77):
            line = lab.sh(f'echo "$V" $SLURM_JOB_NAME; exit {code}', env_vars={"V": "a, 'b'\n\"c\""})
            ensemble.add_model(exp.create_model(f"m{code}", line))
        alone = exp.create_model("alone", lab.sh("echo $SLURM_NNODES"), batch_settings=lab.qsub(queue="low"))
        with anyio.fail_after(DEADLINE):
            group = await exp.start(ensemble, alone)
    assert ends(group) == [(C, 0), (F, 3), (F, 77), (C, 0)]
    assert [job.stdout.read_text() for job in group[:3]] == [f"a, 'b'\n\"c\" m{code}\n" for code in (0, 3, 77)]
    assert group[3].stdout.read_text() == "1\n"
    assert all(job.started_at and job.ended_at and job.pid for job in group)
    assert len(lab.calls("qsub")) == 4
    wanted = [*(f"m{code} debug 10:00" for code in (0, 3, 77)), "alone low UNLIMITED"]
    found = [row.replace("365-00:00:00", "UNLIMITED") for row in lab.jobs("%j %P %l")]  # Slurm's words change meanwhile
    assert sorted(found) == sorted(wanted)


async def test_array(lab: TorqueLab) -> None:
    """One qsub for all members, each a task with an end of its own. (The tasks' number has Slurm's name here.)"""
    settings = lab.qsub()
    settings.add_preamble("export PBS_ARRAYID=$SLURM_ARRAY_TASK_ID")
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", run_settings=lab.sh(""), replicas=4, batch_settings=settings, pack="array")
        for number, model in enumerate(ensemble.models):
            model.run_settings.exe_args = ["-c", f"echo {number}; exit {number}"]
        with anyio.fail_after(DEADLINE):
            group = await exp.start(ensemble)
    assert ends(group) == [(C, 0), (F, 1), (F, 2), (F, 3)]
    assert [job.stdout.read_text() for job in group] == ["0\n", "1\n", "2\n", "3\n"]
    assert [" -t 0-3 " in line for line in lab.calls("qsub")] == [True]


async def test_stop(lab: TorqueLab) -> None:
    """One that waits and one that runs are deleted, by one command; what they ran is gone."""
    async with lab.experiment() as exp:
        running = exp.create_model("running", lab.sh("sleep 765.9 & wait"), batch_settings=lab.qsub())
        waiting = exp.create_model("waiting", lab.sh("true"), batch_settings=lab.qsub(batch_args={"h": True}))
        group = await exp.start(running, waiting, block=False)
        await state_of(group[0], R)
        await until(lambda: bool(processes("765.9")))
        assert group[1].status is P
        with anyio.fail_after(DEADLINE):
            await group.cancel()
    assert [job.status for job in group] == [X, X]
    assert len(lab.calls("qdel")) == 1
    await until(lambda: not processes("765.9"))
    assert sorted(lab.jobs("%j %T")) == ["running CANCELLED", "waiting CANCELLED"]
