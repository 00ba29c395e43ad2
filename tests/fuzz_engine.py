"""Feeds random commands to a server with the engine: `python -m tests.fuzz_engine COUNT [--module PATH] [--seed N]`.

Every command must get one reply, in time, and the server must live. A short run is part of the tests.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .restore import sealed
from .servers import RedisServer

KEYS = [b"a", b"b", b"t", b"m", b"s", b"{\0\0}.m", b"\0", b"", b"longer key " * 5, b"x"]
DTYPES = [b"FLOAT", b"DOUBLE", b"INT8", b"INT16", b"INT32", b"INT64", b"UINT8", b"UINT16", b"BOOL", b"STRING"]
WIDTHS = dict(zip(DTYPES, [4, 8, 1, 2, 4, 8, 1, 2, 1, 1], strict=True))
ODD = [
    b"", b"\0", b"0", b"1", b"2", b"3", b"-1", b"00", b"+1", b" 1", b"1.5", b"nan", b"inf", b"1e999", b"9223372036854775807",
    b"9223372036854775808", b"-9223372036854775808", b"4611686018427387905", b"1099511627776", b"x" * 300, bytes(1500),
    b"\xff\xfe", b"BLOB", b"VALUES", b"META", b"SOURCE", b"INPUTS", b"OUTPUTS", b"TAG", b"BATCHSIZE", b"MINBATCHSIZE",
    b"MINBATCHTIMEOUT", b"ENTRY_POINTS", b"TIMEOUT", b"KEYS", b"ARGS", b"$", b"GET", b"SET", b"RESETSTAT", b"TF",
    b"TORCH", b"CPU", b"GPU", b"GPU:1", b"CPU:", b"float", b"hz", b"dir",
]  # fmt: skip
DEADLINE_S = 60.0


def encoded(words: list[Any]) -> bytes:
    """One command, as clients send it."""
    texts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)


class Replies:
    """Reads replies; OSError when the server is gone or silent for too long."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.data, self.at = connection, b"", 0

    def one(self) -> Any:
        """The next reply: bytes, int, None, a list, or an error as a str."""
        kind, rest = (line := self._line())[:1], line[1:]
        if kind == b"-":
            return rest.decode(errors="replace")
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"*":
            return [self.one() for _ in range(int(rest))] if rest != b"-1" else None
        assert kind == b"$", line
        return None if rest == b"-1" else self._take(int(rest) + 2)[:-2]

    def _line(self) -> bytes:
        while (end := self.data.find(b"\r\n", self.at)) < 0:
            self._more()
        line, self.at = self.data[self.at : end], end + 2
        return line

    def _take(self, size: int) -> bytes:
        while len(self.data) - self.at < size:
            self._more()
        piece, self.at = self.data[self.at : self.at + size], self.at + size
        return piece

    def _more(self) -> None:
        piece = self.connection.recv(1 << 20)
        if not piece:
            raise ConnectionResetError("the server closed the connection")
        self.data, self.at = self.data[self.at :] + piece, 0


class Fuzzer:
    """Makes commands, mostly nearly right ones."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.payloads: list[bytes] = []

    def key(self) -> bytes:
        return self.rng.choice(KEYS)

    def tensor_set(self) -> list[Any]:
        rng, dtype = self.rng, self.rng.choice(DTYPES)
        dims = [rng.choice([1, 1, 2, 3, 5]) for _ in range(rng.randrange(4))]
        if rng.random() < 0.05:
            dims = [rng.choice([300, 3000, 40_000, 300_000])]
        count = 1
        for dim in dims:
            count *= dim
        how, content = rng.random(), rng.randbytes(64)
        if how < 0.6:
            blob = (content * (count * WIDTHS[dtype] // 64 + 1))[: count * WIDTHS[dtype]]
            blob = bytes(count) if dtype in (b"BOOL", b"STRING") else blob
            return ["AI.TENSORSET", self.key(), dtype, *dims, "BLOB", blob]
        if how < 0.9 and count < 100:
            return ["AI.TENSORSET", self.key(), dtype, *dims, "VALUES", *[rng.randrange(2) for _ in range(count)]]
        return ["AI.TENSORSET", self.key(), dtype, *dims]

    def model_store(self) -> list[Any]:
        rng, backend = self.rng, self.rng.choice([b"TF", b"TFLITE", b"TORCH", b"ONNX"])
        nodes = ["INPUTS", 2, "a", b"b\0", "OUTPUTS", 1, "c"] if backend == b"TF" else []
        options: list[Any] = ["TAG", rng.choice(ODD)] if rng.random() < 0.5 else []
        options += ["BATCHSIZE", 4, "MINBATCHSIZE", 2, "MINBATCHTIMEOUT", 1][: 2 * rng.randrange(4)]
        chunks = [rng.randbytes(rng.choice([0, 1, 100, 2000, 50_000])) for _ in range(rng.randrange(1, 4))]
        return ["AI.MODELSTORE", self.key(), backend, rng.choice([b"CPU", b"gpu:1"]), *options, *nodes, "BLOB", *chunks]

    def script_store(self) -> list[Any]:
        tag = ["TAG", self.rng.choice(ODD)] if self.rng.random() < 0.5 else []
        entries = ["ENTRY_POINTS", 2, "f", "g"] if self.rng.random() < 0.5 else []
        name = "AI.SCRIPTSTORE" if entries else "AI.SCRIPTSET"
        return [name, self.key(), "CPU", *tag, *entries, "SOURCE", self.rng.randbytes(self.rng.choice([0, 10, 5000]))]

    def other(self) -> list[Any]:
        key, second, rng = self.key(), self.key(), self.rng
        return rng.choice([
            ["AI.TENSORGET", key, *rng.sample(["META", "BLOB", "VALUES"], rng.randrange(3))],
            ["AI.MODELGET", key, *rng.sample(["META", "BLOB"], rng.randrange(3))],
            ["AI.SCRIPTGET", key, *rng.sample(["META", "SOURCE"], rng.randrange(3))],
            ["AI.MODELDEL", key], ["AI.SCRIPTDEL", key], ["AI._MODELSCAN"], ["AI._SCRIPTSCAN"],
            ["AI.INFO", key, *rng.sample(["RESETSTAT"], rng.randrange(2))],
            ["AI.CONFIG", "GET", rng.choice(["MODEL_CHUNK_SIZE", "BACKENDSPATH", "X"])],
            ["AI.CONFIG", rng.choice(["MODEL_CHUNK_SIZE", "BACKENDSPATH"]), rng.choice(ODD)],
            ["AI.CONFIG", "LOADBACKEND", "TORCH", rng.choice(ODD)],
            ["AI.MODELEXECUTE", key, "INPUTS", 1, second, "OUTPUTS", 1, "c"],
            ["AI.SCRIPTRUN", key, "f", "INPUTS", second, "OUTPUTS", "c"], ["AI.DAGRUN", "|>"],
            ["CONFIG", "SET", rng.choice(["hz", "slowlog-max-len", "slowlog-x", ""]), rng.choice([b"10", b"100", b"x"])],
            ["ASIM.CONFIGSET", rng.choice(["hz", "timeout0", "slowlog-"]), rng.choice([b"10", b"x"])],
            ["COMMAND", "GETKEYS", "AI.MODELEXECUTE", key, "INPUTS", rng.choice([1, 9]), second, "OUTPUTS", 1, "c"],
            ["COMMAND", "GETKEYS", "AI.SCRIPTRUN", key, "f", "INPUTS", second, "$", "x", "OUTPUTS", "c"],
        ])  # fmt: skip

    def reader(self) -> list[Any]:
        """Aimed at a key that may hold such a value."""
        name, words = self.rng.choice([
            ("AI.TENSORGET", ["META", "BLOB", "VALUES"]), ("AI.MODELGET", ["META", "BLOB"]),
            ("AI.SCRIPTGET", ["META", "SOURCE"]),
        ])  # fmt: skip
        return [name, self.key(), *self.rng.sample(words, self.rng.randrange(3))]

    def native(self) -> list[Any]:
        key, second, rng = self.key(), self.key(), self.rng
        how = rng.random()
        if how < 0.004:
            return ["DEBUG", "RELOAD"]
        if how < 0.008:
            return ["FLUSHALL", rng.choice(["ASYNC", "SYNC"])]
        return rng.choice([
            ["RENAME", key, second], ["COPY", key, second, "REPLACE"], ["DEL", key], ["UNLINK", key, second],
            ["EXISTS", key], ["DUMP", key], ["DUMP", key], ["OBJECT", "ENCODING", key], ["MEMORY", "USAGE", key],
            ["DEBUG", "DIGEST-VALUE", key], ["SET", key, b"x" * rng.choice([1, 2000])], ["EXPIRE", key, 1000], ["TYPE", key],
            ["RESTORE", key, 0, self.payload(), "REPLACE"], ["RESTORE", key, 0, self.payload(), "REPLACE"],
            ["PEXPIRE", key, rng.choice([1, 10_000])], ["MOVE", key, 1], ["PING"],
        ])  # fmt: skip

    def payload(self) -> bytes:
        """What DUMP gave for one of our values, mutated between the type and the end; seldom as it is."""
        if not self.payloads:
            return b""
        rng, whole = self.rng, self.rng.choice(self.payloads)
        body, how = bytearray(whole[:-11]), self.rng.random()
        if how < 0.2 or len(body) < 12:
            return whole
        for _ in range(rng.choice([1, 1, 1, 3])):
            at = rng.randrange(10, len(body))
            body[at] = rng.choice([0, 1, 2, 5, 64, 128, 129, 255, rng.randrange(256)])
        if how > 0.8:
            body = body[: rng.randrange(10, len(body))]
            return sealed(bytes(body), whole)
        return sealed(bytes(body) + b"\0", whole)

    def mutated(self, words: list[Any]) -> list[Any]:
        """With an argument replaced, dropped, doubled or swapped. The name stays."""
        rng, words = self.rng, list(words)
        for _ in range(rng.choice([1, 1, 2])):
            at = rng.randrange(1, len(words)) if len(words) > 1 else 0
            how = rng.random()
            if not at or how < 0.15:
                words.append(rng.choice(ODD))
            elif how < 0.6:
                words[at] = rng.choice(ODD)
            elif how < 0.8:
                del words[at]
            else:
                other = rng.randrange(1, len(words))
                words[at], words[other] = words[other], words[at]
        return words

    def plain(self) -> list[Any]:
        how = self.rng.random()
        if how < 0.3:
            return self.native()
        makers = [self.tensor_set, self.tensor_set, self.model_store, self.script_store, self.other, self.other]
        words = self.reader() if how < 0.4 else self.rng.choice(makers)()
        if words[0] in ("CONFIG", "ASIM.CONFIGSET", "COMMAND"):
            return words
        return self.mutated(words) if self.rng.random() < 0.4 else words

    def commands(self) -> Iterator[list[Any]]:
        """One command, or a transaction."""
        how = self.rng.random()
        if how < 0.03:
            yield ["MULTI"]
            for _ in range(self.rng.randrange(6)):
                yield self.plain()
            yield [self.rng.choice(["EXEC", "EXEC", "DISCARD"])]
        elif how < 0.08:
            words = self.plain()
            if words[0] in ("DEBUG", "FLUSHALL"):
                yield words
            else:
                call = self.rng.choice(["call", "pcall"])
                yield ["EVAL", f"return redis.{call}(unpack(ARGV))", 0, *words]
        else:
            yield self.plain()

    def batch(self, least: int) -> list[list[Any]]:
        """At least so many commands."""
        made: list[list[Any]] = []
        while len(made) < least:
            made += self.commands()
        return made

    def learn(self, words: list[Any], reply: Any) -> None:
        """Keep small payloads of our own types."""
        if words[0] == "DUMP" and isinstance(reply, bytes) and 12 < len(reply) < 400 and reply[:1] == b"\x07":
            if len(self.payloads) < 200:
                self.payloads.append(reply)
            else:
                self.payloads[self.rng.randrange(200)] = reply


def fuzz(server: RedisServer, count: int, seed: int) -> Counter[str]:
    """Send at least so many commands; returns how many replies of each kind came. AssertionError when it goes wrong."""
    fuzzer, seen, done = Fuzzer(seed), Counter[str](), 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE_S)
        connection.connect(str(server.socket))
        replies, batch, got = Replies(connection), [["PING"]], 0
        try:
            while done < count:
                batch, got = fuzzer.batch(100), 0
                connection.sendall(b"".join(map(encoded, batch)))
                for words in batch:
                    reply = replies.one()
                    got += 1
                    fuzzer.learn(words, reply)
                    seen[f"{words[0]} {_kind(reply)}"] += 1
                done += len(batch)
            connection.sendall(encoded(["ECHO", "the end"]))
            assert replies.one() == b"the end", "a reply too many"
        except OSError as error:
            tail = [[str(word)[:80] for word in words] for words in batch[max(0, got - 3) : got + 3]]
            raise AssertionError(f"seed {seed}, after {done + got}: {error!r}\n{tail}\n{server.said()}") from error
    assert server.process is not None
    assert server.process.poll() is None
    return seen


def _kind(reply: Any) -> str:
    return "error" if isinstance(reply, str) else "nil" if reply is None else "ok"


ARGS = ("--maxmemory", "400mb", "--maxmemory-policy", "allkeys-random")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_engine", description=__doc__)
    parser.add_argument("count", type=int, help="how many commands")
    parser.add_argument("--module", type=Path, help="another build of the engine")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--server", help="another server program")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        made = RedisServer(options.server, options.module or True, Path(place), ARGS)
        if "v=6." not in made.version():
            made.args = (*ARGS, "--enable-debug-command", "yes")
        started = time.monotonic()
        with made as server:
            seen = fuzz(server, options.count, options.seed)
        took = time.monotonic() - started
    for name, number in sorted(seen.items()):
        print(f"{number:9} {name}")
    print(f"{sum(seen.values())} commands were answered by {made.version().strip()} in {took:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
