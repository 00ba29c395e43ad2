"""The contenders, and the environments of those that pip can install."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from harness import Contender

ASIM = Contender("asim", "run_asim.py")
ASYNCIO = Contender("asyncio", "run_asyncio.py", note="stock create_subprocess_exec")
PEERS = {
    one.package: one
    for one in (
        Contender("executorlib", "run_executorlib.py", "executorlib", note="warm workers (block_allocation)"),
        Contender("libEnsemble", "run_libensemble.py", "libensemble", 1000, note="workers start inside the time"),
        Contender("Parsl", "run_parsl.py", "parsl", 1000, note="HighThroughputExecutor, workers up before"),
        Contender("PSI/J", "run_psij.py", "psij-python", 200, note="local; no limit on what is in flight"),
        Contender(
            "SmartSim", "run_smartsim.py", "smartsim", 40, 1, note="telemetry off, 1 s polls; no limit in flight"
        ),
    )
}


def selected(words: str) -> list[Contender]:
    """The peers of a ``--peers`` option: names as pip has them, separated by commas, or "all"."""
    names = list(PEERS) if words == "all" else [word.strip() for word in words.split(",") if word.strip()]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise SystemExit(f"--peers: {', '.join(unknown)}: must be all, or some of {', '.join(PEERS)}")
    return [PEERS[name] for name in names]


def installed(peers: list[Contender], folder: Path, python: str) -> list[Contender]:
    """Those that have an environment ``<folder>/<package>``, or for which one could be made."""
    found = []
    for peer in peers:
        home = folder / peer.package
        interpreter = home / "bin" / "python"
        if interpreter.exists() or _install(peer.package, home, python):
            found.append(replace(peer, python=str(interpreter)))
    return found


def _install(package: str, home: Path, python: str) -> bool:
    print(f"installing {package} into {home} ...", flush=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q", "install", package]
    for command in ([python, "-m", "venv", str(home)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            _discard(home)
            print(f"left out: {package} cannot be installed:\n{(done.stderr or done.stdout)[-1500:]}", file=sys.stderr)
            return False
    return True


def _discard(home: Path) -> None:
    """What is left of an environment that could not be completed must not be taken for one."""
    (home / "bin" / "python").unlink(missing_ok=True)
