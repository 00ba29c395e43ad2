"""``examples/online_training``: the network learns while it is used, and the database has the last one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asim.database.server_program import find_server
from tests.conftest import missing
from tests.integration.ml_models import need

from .conftest import EXAMPLES

pytestmark = pytest.mark.slow
SCRIPT = EXAMPLES / "online_training" / "train.py"
ROW = re.compile(r"^│ (pendulum_\d|trainer) +│ .* │ ([\d,]+) +│ ([\d.]+) +│ ([\d.]+) +│$", re.MULTILINE)
HIDDEN = "import sys; sys.modules['torch'] = None; import runpy; runpy.run_path({!r}, run_name='__main__')"


def finish(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100", "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, encoding="utf-8", timeout=110, check=False
    )


@pytest.mark.timeout(120)
def test_it_learns_while_it_is_used(tmp_path: Path) -> None:
    """The loss falls tenfold in training and for every member that uses the network; the last one is in the database."""
    need("torch")
    if find_server(dict(os.environ)) is None:
        missing("there is no redis-server")
    done = finish(SCRIPT, "--results", tmp_path / "r", "--batches", "40")
    assert done.returncode == 0, done.stderr
    rows = {
        name: (int(count.replace(",", "")), float(first), float(last))
        for name, count, first, last in ROW.findall(done.stdout)
    }
    assert set(rows) == {"pendulum_0", "pendulum_1", "pendulum_2", "pendulum_3", "trainer"}
    assert rows["trainer"][0] == sum(rows[f"pendulum_{rank}"][0] for rank in range(4)) == 4 * 40 * 150
    assert all(last < first / 10 for _, first, last in rows.values()), done.stdout
    assert (tmp_path / "r/surrogate.pt").read_bytes() == (tmp_path / "r/trained.pt").read_bytes()
    assert (tmp_path / "r/loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert done.stderr == ""


def test_without_torch_it_says_how_to_install_it() -> None:
    """No torch: the exact command, and no traceback."""
    done = finish("-c", HIDDEN.format(str(SCRIPT)))
    assert done.returncode == 1
    expected = f"torch is not installed. Install it with: {sys.executable} -m pip install 'asim[demo,torch]'\n"
    assert done.stderr == expected
