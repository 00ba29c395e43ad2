"""Time limits and memory: the amounts that must not change on their way to a flag."""

from __future__ import annotations

import pytest

from asim.errors import ConfigError, UnsupportedError
from asim.settings import AprunSettings, JsrunSettings, MpirunSettings, SrunSettings


@pytest.mark.parametrize(
    ("hours", "minutes", "seconds", "slurm", "others"),
    [
        (0, 0, 0, "00:00:00", "0"),
        (0, 90, 5, "01:30:05", "5405"),
        (30, 0, 0, "30:00:00", "108000"),
        (100, 0, 1, "100:00:01", "360001"),
    ],
)
def test_times_never_become_days(hours, minutes, seconds, slurm, others):
    """A day and more is HH:MM:SS with as many hours as it takes; others get seconds."""
    srun, aprun, mpirun = SrunSettings("x"), AprunSettings("x"), MpirunSettings("x")
    for settings in (srun, aprun, mpirun):
        settings.set_time(hours=hours, minutes=minutes, seconds=seconds)
    assert srun.run_args == {"time": slurm}
    assert aprun.run_args == {"cpu-time-limit": others}
    assert mpirun.run_args == {"timeout": others}


def test_negative_time_is_refused():
    """A time limit cannot be negative."""
    with pytest.raises(ConfigError, match="minutes"):
        SrunSettings("x").set_time(minutes=-1)


def test_memory_per_node_stays_per_node():
    """srun is told per node; aprun per process, divided by processes per node, whichever is set first."""
    srun, aprun = SrunSettings("x"), AprunSettings("x")
    srun.set_memory_per_node(1000)
    assert srun.format_run_args() == ["--mem=1000M"]
    aprun.set_memory_per_node(1001)
    aprun.set_tasks_per_node(4)
    assert aprun.format_run_args() == ["--pes-per-node=4", "--memory-per-pe=250"]
    aprun.set_tasks_per_node(2)
    assert aprun.format_run_args() == ["--pes-per-node=2", "--memory-per-pe=500"]


def test_memory_per_node_is_refused_when_it_cannot_be_divided():
    """Without a number of shares, or with more shares than megabytes, it is an error in words, not another amount."""
    aprun, jsrun = AprunSettings("x"), JsrunSettings("x")
    for settings, flag in ((aprun, "pes-per-node"), (jsrun, "rs_per_host")):
        settings.set_memory_per_node(3)
        with pytest.raises(UnsupportedError, match=flag):
            settings.format_run_args()
        settings.set(flag, 4)
        with pytest.raises(ConfigError, match="less than 1 MB"):
            settings.format_run_args()


def test_the_later_of_two_memory_calls_wins():
    """Memory per share and per node replace each other."""
    jsrun = JsrunSettings("x", run_args={"rs_per_host": 2})
    jsrun.set_memory_per_node(100)
    assert jsrun.format_run_args() == ["--rs_per_host=2", "--memory_per_rs=50"]
    jsrun.set_memory_per_rs(7)
    assert jsrun.format_run_args() == ["--rs_per_host=2", "--memory_per_rs=7"]
    jsrun.set_memory_per_node(100)
    assert jsrun.format_run_args() == ["--rs_per_host=2", "--memory_per_rs=50"]
