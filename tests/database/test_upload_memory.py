"""The memory of a driver that uploads a large file: a real server, and a driver in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.ml_models import need

from .test_uploads import onnx_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
SIZE = 300 << 20
ALLOWED = 100 << 20
DRIVER = """
import anyio
import redis
from pathlib import Path
from asim import Experiment, MLModel

def most():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

async def main():
    async with Experiment("exp", stop_grace=0.5) as exp:
        db = exp.create_database(port=0)
        await exp.start(db)
        await exp.upload(db, MLModel(name="small", backend="ONNX", source=Path("small.onnx")))
        before = most()
        await exp.upload(db, MLModel(name="large", backend="ONNX", source=Path("large.onnx")))
        after = most()
        host, _, port = db.get_address()[0].rpartition(":")
        stored = redis.Redis(host, int(port)).memory_usage("large")
        print(after - before, stored)
        await exp.stop(db)

anyio.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory a process has had at most")
def test_a_large_file_needs_little_memory(home: Path) -> None:
    """A model of 300 MB in a file: its driver has at no time more than some blocks of it in memory."""
    need("onnxruntime")
    Path("small.onnx").write_bytes(onnx_model())
    Path("large.onnx").write_bytes(onnx_model(2, SIZE))
    done = subprocess.run([sys.executable, "-c", DRIVER], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    grown, stored = map(int, done.stdout.split())
    assert stored > SIZE
    assert grown < ALLOWED
