"""A controller that is away for a while, really: its process ends and another is started on the same state."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from asim import SbatchSettings
from tests.site.experiments import *  # noqa: F403  (its fixtures)
from tests.site.experiments import C, F, Lab, until
from tests.site.slurm import SlurmSite, need_slurm

pytestmark = pytest.mark.anyio
AWAY = 6.0
"""Seconds: longer than the jobs run, and than a command waits for the controller."""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A cluster of its own: what others share stays as it is."""
    need_slurm()
    folder = tempfile.mkdtemp(prefix="asim-", dir="/tmp")
    try:
        with SlurmSite(Path(folder) / "s", 2) as site:
            yield Lab(site, tmp_path, monkeypatch)
            site.down()  # a controller that was started again may list ended jobs as stopped ones: nothing to wait for
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(200)
async def test_controller_down_while_jobs_run_and_end(own: Lab) -> None:
    """Ends are seen while it is down, what only it can tell is told when it is back, and a submit waits for it."""
    with anyio.fail_after(150):
        async with own.experiment() as exp:
            ends = {"well": "exit 0", "badly": "exit 3", "killed": "kill -9 $$"}
            models = [
                exp.create_model(
                    name,
                    exp.create_run_settings("/bin/sh", ["-c", f"sleep 4; {end}"], run_command=""),
                    batch_settings=SbatchSettings(),
                )
                for name, end in ends.items()
            ]
            group = await exp.start(*models, block=False)
            await until(lambda: all(job.started_at for job in group), 60)
            own.site.down()
            late = exp.create_model(
                "late", exp.create_run_settings("/bin/true", run_command=""), batch_settings=SbatchSettings()
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(exp.start, late)
                await until(lambda: [job.status for job in group][:2] == [C, F], 60)
                assert not group[2].status.terminal  # nobody can say yet why it was killed
                await anyio.sleep(AWAY)
                await anyio.to_thread.run_sync(own.site.up)
                await group.wait()
            assert [(job.status, job.returncode) for job in group] == [(C, 0), (F, 3), (F, -9)]
            assert exp.get_status(late) == [C]
