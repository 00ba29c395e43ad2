"""``examples/online_inference``: that the network helps as much as is said, and that ranks change nothing."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from asim.database.server_program import find_server
from tests.conftest import missing

from .conftest import EXAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # of a loaded machine; a run takes 10 to 30 s
FOLDER = EXAMPLES / "online_inference"
COLOUR = {"FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in COLOUR} | {"COLUMNS": "100"}
Array = np.ndarray[Any, Any]


@dataclass
class Ended:
    """One run of the script, what it printed, and what it left."""

    output: str
    results: Path
    fields: Mapping[str, Array]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """One run on four ranks, for all tests."""
    if find_server(dict(os.environ)) is None:
        missing("there is no redis-server")
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            missing(f"{package} is not installed")
    results = tmp_path_factory.mktemp("online") / "results"
    command: list[str | Path] = [sys.executable, FOLDER / "smoke.py", "--results", results]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=150, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return Ended(ended.stdout, results, np.load(results / "fields.npz"))


@pytest.fixture
def solver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The modules of the example can be imported; this is its solver."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("solver")


def error(field: Array, truth: Array) -> float:
    """As in the table, computed in another way: on the coarse grid, as a fraction of all the smoke."""
    factor = len(field) // len(truth)
    same = sum(field[i::factor, j::factor] for i in range(factor) for j in range(factor)) / factor**2
    return float(np.abs(same - truth).sum() / truth.sum())


def alone(solver: ModuleType, scheme: Any, steps: int) -> Array:
    """The coarse grid in one piece, without ranks and without a database."""
    case = importlib.import_module("case")
    field: Array = solver.smoke(case.CELLS, case.PUFFS)
    for step in range(steps):
        padded = np.pad(field, solver.HALO, mode="wrap")
        courant = case.FLOW.courant(slice(0, case.CELLS), case.CELLS, (step + 0.5) / case.STEPS, 1 / case.STEPS)
        field = solver.advance(padded, solver.fluxes(padded, courant, scheme))
    return field


def test_the_network_makes_the_coarse_grid_better(run: Ended, solver: ModuleType) -> None:
    """With the network the errors are less than a fifth of those without, and half of a second-order scheme's."""
    case = importlib.import_module("case")
    start = solver.smoke(case.CELLS, case.PUFFS)
    truth = {"half": solver.coarsen(run.fields["reference half"], 4), "end": start}
    for when, right in truth.items():
        first, second, network = (
            error(run.fields[f"{name} {when}"], right) for name in ("first order", "second order", "network")
        )
        assert network < first / 5 and network < second / 2
        assert all(f"{found:.1%}" in run.output for found in (first, second, network))
    assert error(run.fields["network end"], start) < 1.5 * error(run.fields["reference end"], start)


def test_no_smoke_is_lost(run: Ended) -> None:
    """Whatever a network says, what leaves one cell enters another, also from rank to rank."""
    totals = [float(np.mean(field)) for field in run.fields.values()]
    assert len(totals) == 8 and np.allclose(totals, totals[0], rtol=1e-9)


@pytest.mark.parametrize(("name", "scheme"), [("first order", "upwind"), ("second order", "limited")])
def test_four_ranks_compute_what_one_does(run: Ended, solver: ModuleType, name: str, scheme: str) -> None:
    """The rows that neighbours exchange through the database are the right ones, of the right step."""
    assert np.allclose(run.fields[f"{name} half"], alone(solver, getattr(solver, scheme), 80), atol=1e-13)


def test_the_database_computes_what_the_framework_does(run: Ended, solver: ModuleType) -> None:
    """80 steps of four ranks with the network in the database end as those of one with onnxruntime in its own process."""
    import onnxruntime

    session = onnxruntime.InferenceSession(run.results / "closure.onnx", providers=["CPUExecutionProvider"])
    learned = importlib.import_module("closure").learned(lambda asked: session.run(None, {"input": asked})[0])
    assert np.abs(run.fields["network half"] - alone(solver, learned, 80)).mean() < 1e-4


def test_prints_a_table_and_where_the_results_are(run: Ended) -> None:
    """A line for each run, a bar for each that has ranks, and the place of a picture with something in it."""
    assert len(re.findall(r"^│ (first order|second order|network|reference) ", run.output, re.MULTILINE)) == 4
    assert run.output.count("160/160") == 3
    assert f"The results are in {run.results}" in run.output
    data = (run.results / "smoke.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 20_000


def test_a_grid_that_cannot_be_divided_is_refused() -> None:
    """A number of ranks that would leave rows over is an error of the command line, with what is allowed."""
    command = [sys.executable, FOLDER / "smoke.py", "--ranks", "3"]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=50, check=False)
    assert ended.returncode == 2 and "argument --ranks" in ended.stderr and "4" in ended.stderr
