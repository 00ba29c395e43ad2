"""Output that PBS cannot put in its place after the end of a job."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from asim.launchers import _deliveries
from asim.launchers.base import JobKey
from asim.plan import BatchRequest
from asim.settings import QsubBatchSettings
from asim.settings.script import Pack
from asim.status import JobState
from asim.testing.contracts import Evidence
from asim.testing.schedulers import FakePBS
from tests.contract.test_contracts import job
from tests.contract.test_scheduled import launched

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
KEYS = JobKey(1), JobKey(2)


@pytest.mark.parametrize("pack", ["job", "array"])
async def test_it_is_told(pack: Pack, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told though members tell of their ends before, and though the experiment ends at once."""
    request = BatchRequest(name="b", settings=QsubBatchSettings(nodes=1), pack=pack, home=f"{tmp_path}/b")
    (tmp_path / "b.out").symlink_to("/no/such/place/b.out")
    specs = [replace(job(f"m{key}", "true", tmp_path), batch=request) for key in KEYS]
    with FakePBS(tmp_path / "pbs", poll=0.1, exiting=2.0) as fake:
        environ = {**os.environ, "PATH": f"{fake.bin}:{os.environ['PATH']}"}
        launcher, evidence = launched("pbs", environ, tmp_path), Evidence(30)
        await launcher.open(evidence, evidence.lost.append)
        async with anyio.create_task_group() as group:
            group.start_soon(launcher.serve)
            await launcher.submit(list(zip(KEYS, specs, strict=True)))
            await evidence.until(lambda: evidence.ended(*KEYS))
            assert caplog.messages == []
            with anyio.fail_after(10):
                await launcher.close([])
    lost = f"its output could not be delivered to pbshost:{tmp_path}/b.out"
    others = " (and 1 of its tasks' besides)" if pack == "array" else ""
    job_id = "1[].pbshost" if pack == "array" else "1.pbshost"
    assert caplog.messages == [f"pbs job {job_id}: Stageout_status 0: {lost}{others}"]
    assert {evidence.states(key)[-1] for key in KEYS} == {JobState.COMPLETED}


async def test_it_is_not_waited_for_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment whose job stays in PBS for long ends nevertheless."""
    monkeypatch.setattr(_deliveries, "CLOSING", 0.5)
    request = BatchRequest(name="b", settings=QsubBatchSettings(nodes=1), pack="separate", home=f"{tmp_path}/b")
    with FakePBS(tmp_path / "pbs", poll=0.1, exiting=30.0) as fake:
        environ = {**os.environ, "PATH": f"{fake.bin}:{os.environ['PATH']}"}
        launcher, evidence = launched("pbs", environ, tmp_path), Evidence(30)
        await launcher.open(evidence, evidence.lost.append)
        async with anyio.create_task_group() as group:
            group.start_soon(launcher.serve)
            await launcher.submit([(JobKey(1), replace(job("m", "true", tmp_path), batch=request))])
            await evidence.until(lambda: evidence.ended(JobKey(1)))
            with anyio.fail_after(10):
                await launcher.close([])
    assert caplog.messages == []
