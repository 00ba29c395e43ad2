"""What the settings tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from asim.settings import RunSettings, Step, StepContext

CONTEXT = StepContext(name="sim", cwd="/w/sim", stdout="/w/sim.out", stderr="/w/sim.err", exe="", exe_args=())


@pytest.fixture
def step() -> Callable[..., Step]:
    """``step(settings, launcher="slurm", in_batch=True, …)``: the step of a job with fixed names."""

    def make(settings: RunSettings, **changes: Any) -> Step:
        known = {"exe": settings.exe, "exe_args": tuple(settings.exe_args)}
        return settings.step(replace(CONTEXT, **{**known, **changes}))

    return make
