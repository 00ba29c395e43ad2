"""``examples/key_prefixing``, once with each client."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asim.database.server_program import find_server
from tests.conftest import missing

from .conftest import EXAMPLES

SCRIPT = EXAMPLES / "key_prefixing" / "experiment.py"
SMARTREDIS = Path(__file__).parents[2] / ".venv-smartredis/bin/python"


@pytest.mark.slow
@pytest.mark.parametrize("client", ["asim", "smartredis"])
def test_the_consumer_gets_both_tensors(home: Path, client: str) -> None:
    """Two tensors of one name, from two producers, are told apart by set_data_source."""
    if find_server(dict(os.environ)) is None:
        missing("there is no redis-server")
    words: list[str] = []
    if client == "smartredis":
        python = os.environ.get("ASIM_SMARTREDIS_PYTHON", str(SMARTREDIS))
        if not Path(python).exists():
            missing("SmartRedis is not installed (make smartredis)")
        words = ["--smartredis", python]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()  # SmartRedis' logger puts its name and the time before each
    assert any(line.endswith("1: [5 6 7 8]") for line in shown) and any(line.endswith("2: [1 2 3 4]") for line in shown)
