"""Feeds broken frames to real agents: `python -m tests.fuzz_agent [SECONDS] [SEED]`. A short run is part of the tests.

An agent must end cleanly whatever it is sent: exit code 0, nothing on stderr, every frame of its own well formed, and no
process of its left.
"""

import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from asim.agent.protocol import VERSION

AGENT = Path(__file__).parent.parent / "asim" / "agent"
RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from main import main; main(sys.argv[1:])"
# no "/" and no "..": a broken path must not lead out of the directory of the test
SCALARS = [
    None,
    True,
    0,
    -1,
    1 << 70,
    1.5,
    float("nan"),
    "",
    "x",
    "\0",
    "\udcff",
    "\ud800",
    [],
    {},
    [[]],
    {"a": 1},
]


def frame(message: object) -> bytes:
    """A well-formed frame."""
    body = json.dumps(message).encode()
    return struct.pack("!I", len(body)) + body


def hello(place: str) -> list[Any]:
    """A good introduction."""
    return ["hello", VERSION, {"run": "fuzz", "cap": 4, "grace": 0.2, "records": f"{place}/records", "on_eof": "stop"}]


def good_messages(place: str) -> list[list[Any]]:
    """Messages that an agent accepts."""
    run = {"argv": ["true"], "env": [["A", "b"], ["C", None]], "cwd": place, "stdin": "", "timeout": 5, "limit": 100}
    job = [1, 0, 0, place, f"{place}/o", f"{place}/e", None, False, False]
    return [
        ["spawn", {"argv": [["/bin/true"]], "env": [[["A", "b"], ["C", None]]], "jobs": [job, [2, *job[1:]]]}],
        [
            "spawn",
            {"argv": [["/bin/sleep", "1"]], "env": [[]], "jobs": [[3, *job[1:6], 0.05, False], [4, *job[1:7], True]]},
        ],
        [
            "files",
            1,
            [
                ["mkdirs", f"{place}/d/e"],
                ["write", f"{place}/d/w", "x"],
                ["mkdir", f"{place}/.asim-d"],
                ["remove", f"{place}/.asim-d"],
            ],
            True,
        ],
        ["files", 2, [["template", "o", 0, ["a", "T", "b"]], ["render", f"{place}/r", 0, ["1"], 420]], False],
        ["run", 3, {**run, "argv": ["cat"], "stdin": "x" * 99}],
        ["run", 4, {**run, "argv": ["sleep", "1"], "timeout": 0.01}],
        ["unrun", 4],
        ["watch", place, 0.01],
        ["watch", place, 0],
        ["stop", [1, 4], 0.1],
        ["bye", [1]],
        ["bye", "all"],
    ]


def mutate(rng: random.Random, value: Any) -> Any:
    """``value`` with something in it replaced, dropped or doubled. Paths stay inside the test's directory."""
    if rng.random() < 0.15:
        return rng.choice(SCALARS)
    if isinstance(value, list) and value:
        items, index = list(value), rng.randrange(len(value))
        how = rng.random()
        if how < 0.6:
            items[index] = mutate(rng, items[index])
        elif how < 0.8:
            del items[index]
        else:
            items.append(items[index])
        return items
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        return {**value, key: mutate(rng, value[key])}
    return rng.choice(SCALARS)


def script(rng: random.Random, place: str) -> bytes:
    """What one driver sends: some good messages, mostly one bad one, in odd pieces or cut off."""
    messages = [hello(place)] if rng.random() < 0.9 else []
    messages += rng.sample(good_messages(place), rng.randrange(3))
    data = b"".join(map(frame, messages))
    how = rng.random()
    if how < 0.7:
        data += frame(mutate(rng, rng.choice([hello(place), *good_messages(place)])))
    elif how < 0.8:
        data += rng.randbytes(rng.randrange(1, 64))
    elif how < 0.9:
        data += struct.pack("!I", rng.choice([1, 5, 1 << 20, 0xFFFFFFFF])) + rng.choice(
            [b"[", b"[]", b"nul", b"\xff\xfe"]
        )
    else:
        data += frame(rng.choice(SCALARS))
    return data if rng.random() < 0.8 else data[: rng.randrange(len(data) + 1)]


def one(rng: random.Random, place: str) -> None:
    """One agent, one script. Raises AssertionError with what was sent when the agent misbehaves."""
    data = script(rng, place)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", "-c", RUN, str(AGENT), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            cwd=place,
            start_new_session=True,
        )
        theirs.close()
        try:
            for start in range(0, len(data), 4096):
                ours.sendall(data[start : start + 4096])
            ours.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has given up already
        answer = bytearray()
        try:
            while piece := ours.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        errors = child.communicate(timeout=20)[1]
    assert (child.returncode, errors) == (0, b""), (data, errors.decode())
    while answer:
        (size,) = struct.unpack_from("!I", answer)
        message = json.loads(answer[4 : 4 + size])
        assert message[0] in ("ready", "news", "files", "said", "ran", "seen", "fatal"), (data, message)
        del answer[: 4 + size]


def one_daemon(rng: random.Random, place: str) -> None:
    """One agent that outlives its link: a script that is cut into connections, with right and wrong counts."""
    token = f"{rng.getrandbits(32):x}"
    start = [sys.executable, "-I", "-S", "-E", "-c", RUN, str(AGENT)]
    subprocess.run(
        [*start, "serve", f"{place}/run", token], stdout=subprocess.DEVNULL, cwd=place, check=True, timeout=20
    )
    base = Path(place) / "run"
    pid = int((base / f"{token}.pid").read_text())
    pieces = [
        frame(message) for message in ([["ack", rng.choice([0, 9, 1 << 70, -1, "x", None])], ["eof"], ["eof", 1]])
    ]
    data = script(rng, place)
    if rng.random() < 0.5:
        data += rng.choice(pieces)
    received = sent = 0
    try:
        for _ in range(rng.randrange(1, 5)):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(0.1)
                sock.connect(str(base / f"{token}.sock"))
                sock.sendall(struct.pack("!Q", received if rng.random() < 0.9 else rng.getrandbits(63)))
                if (head := sock.recv(8)) == b"":
                    continue
                (count,) = struct.unpack("!Q", head)
                assert count <= sent, (data, count, sent)
                piece = data[count : count + rng.randrange(1, 2000)]
                sent = max(sent, count + len(piece))
                sock.sendall(piece)
                received += len(sock.recv(rng.randrange(1, 4000)))
    except OSError:
        pass  # it has given up already, or has nothing to say
    until = time.monotonic() + 0.2
    while time.monotonic() < until and Path(f"/proc/{pid}").exists():
        time.sleep(0.01)
    log = base / f"{token}.log"
    errors = log.read_text() if log.exists() else ""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # it waits for a driver
    assert errors == "", (data, errors)


def main(seconds: float, seed: int) -> int:
    """Fuzz for so long; returns how many agents were tried."""
    rng, until, count = random.Random(seed), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as place:
            (one_daemon if rng.random() < 0.1 else one)(rng, place)
        count += 1
    return count


if __name__ == "__main__":
    arguments = [float(word) for word in sys.argv[1:]] or [60.0]
    chosen = int(arguments[1]) if arguments[1:] else random.SystemRandom().randrange(1 << 30)
    print(f"seed {chosen}", flush=True)
    print(f"{main(arguments[0], chosen)} agents ended cleanly")
