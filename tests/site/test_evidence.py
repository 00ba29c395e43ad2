"""What a real Slurm, its accounting and the members' files say of an end, when they are odd, late, or silent."""

from __future__ import annotations

import shutil
import time

import anyio
import pytest

from asim import Ensemble
from asim.launchers import tracking
from asim.settings.script import Pack
from tests.site.experiments import C, F, Lab, P, R, accounted, anyio_backend, ends, lab, state_of, until

__all__ = ["accounted", "anyio_backend", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
DEADLINE = 40


@pytest.mark.parametrize("pack", ["job", "array", "separate"])
async def test_exit_codes_that_are_no_signals(lab: Lab, pack: Pack) -> None:
    """What ends with 255, as after ``exit(-1)``, or with 200 ended by itself; so says its history."""
    codes = (255, 200, 193, 129)
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", batch_settings=lab.batch(), pack=pack)
        for code in codes:
            ensemble.add_model(exp.create_model(f"m{code}", lab.sh(f"exit {code}")))
        with anyio.fail_after(DEADLINE):
            group = await exp.start(ensemble)
    assert ends(group) == [(F, 255), (F, 200), (F, 193), (F, -1)]
    assert [job.reason for job in group[:3]] == ["exit code 255", "exit code 200", "exit code 193"]
    for file in lab.place.glob("*/.asim/*.journal.jsonl"):
        lines = file.read_text().splitlines()  # also where the driver did not see the ends: from the files alone
        file.write_text("".join(f"{line}\n" for line in lines if '"ended"' not in line))
    async with lab.experiment() as exp:
        rows = [row for row in await exp.history() if row["name"].startswith("m")]
    assert [(row["status"], row["returncode"]) for row in rows] == [("FAILED", code) for code in (255, 200, 193, -1)]


async def test_run_again_after_an_exit_code_that_is_no_signal(lab: Lab) -> None:
    """A job that is put back into the queue runs only those members again that had not ended by themselves."""
    async with lab.experiment() as exp:
        ensemble = Ensemble("e", batch_settings=lab.batch(requeue=None), pack="job")
        ensemble.add_model(exp.create_model("odd", lab.sh("echo ran; exit 255")))
        again = 'echo ran; [ -n "$SLURM_RESTART_COUNT" ] || sleep 600'
        ensemble.add_model(exp.create_model("long", lab.sh(again)))
        group = await exp.start(ensemble, block=False)
        with anyio.fail_after(DEADLINE):
            await group[0]
            await state_of(group[1], R)
            lab.site.run("scontrol", "requeue", lab.job_of(group[1]))
            await group[1]
    assert ends(group) == [(F, 255), (C, 0)]
    assert group[0].stdout.read_text() == "ran\n"
    assert len(list(lab.place.glob("*/.asim/*.ends/*.1.start"))) == 1


async def test_answer_that_is_slower_than_the_start(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that starts while an answer that it waits is on its way has not been run again: its death is its end."""
    monkeypatch.setattr(tracking, "SETTLE", 0.3)
    real = shutil.which("squeue", path=lab.site.env["PATH"])
    wait = f"echo > {lab.place}/asked; while [ ! -e {lab.place}/answer ]; do sleep 0.1; done"
    async with lab.experiment() as exp:
        line = f"while [ ! -e {lab.place}/go ]; do sleep 0.1; done; kill -9 $$"
        group = await exp.start(exp.create_model("m", lab.sh(line), batch_settings=lab.batch(hold=True)), block=False)
        await state_of(group[0], P)
        lab.hook("squeue", f'out=$({real} "$@"); {wait}; printf "%s\\n" "$out"; exit')
        await until((lab.place / "asked").exists, 20)
        lab.hook("squeue", None)
        lab.site.run("scontrol", "release", lab.job_of(group[0]))
        await state_of(group[0], R)
        await anyio.sleep(1)  # the answer is that late
        (lab.place / "answer").touch()
        (lab.place / "go").touch()
        with anyio.fail_after(DEADLINE):
            await group.wait()
    assert ends(group) == [(F, -9)]


async def test_accounting_that_is_down(accounted: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose node was lost FAILED with that reason, soon, though sacct answers nobody; and it is not asked often."""
    monkeypatch.setattr(tracking, "JUDGE", 5.0)
    lab = accounted
    lab.hook("sacct", "echo 'sacct: error: slurmdbd: Unable to connect: Connection refused' >&2; exit 1")
    async with lab.experiment() as exp:
        lost = exp.create_model("lost", lab.sh("sleep 600"), batch_settings=lab.batch(nodelist="n4", no_requeue=None))
        group = await exp.start(lost, block=False)
        await state_of(group[0], R)
        lab.site.set_node("n4", "down")
        began = time.monotonic()
        try:
            with anyio.fail_after(DEADLINE):
                await group.wait()
        finally:
            lab.site.set_node("n4", "resume")
    assert (group[0].status, group[0].reason[:10]) == (F, "NODE_FAIL:")
    assert 0 < len(lab.calls("sacct")) <= 12
    assert time.monotonic() - began < 20
