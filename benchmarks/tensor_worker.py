"""One client of :mod:`tensors`, in a process of its own: it is told by a line of JSON what to time, and answers so.

Only what its kind needs is imported: SmartRedis runs in another interpreter, which knows nothing of asim.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import time

BLOB = re.compile(rb"(?:\A|blob\r\n)\$(\d+)\r\n")
ELEMENT = 8
"""Bytes of an element: all tensors are float64."""


class Blocking:
    """Calls a function again and again.

    :ivar address: ``unix:///path`` or ``host:port``.
    :ivar size: of a tensor, in bytes.
    """

    def __init__(self, job):
        self.address, self.size, self.native = job["address"], job["size"], job.get("native", False)
        self.key = job["key"]
        self.open()

    def open(self):
        """Connect, and make ready what is not to be timed."""

    def close(self):
        """End the connection."""

    def timed(self, job):
        """The number of calls, when they began and ended, and the processor's time."""
        call = getattr(self, job["verb"])
        self.put()
        _during(call, job["warm"], 1)
        cpu, began = time.process_time(), time.perf_counter()
        done = _during(call, job["seconds"], job["least"])
        return done, began, time.perf_counter(), time.process_time() - cpu


def _during(call, seconds, least):
    """Call for so long, and so often at least."""
    done, until = 0, time.perf_counter() + seconds
    while done < least or time.perf_counter() < until:
        call()
        done += 1
    return done


class Raw(Blocking):
    """The least that a client in Python can do: requests that are ready, replies that nobody looks at."""

    def open(self):
        elements, blob = self.size // ELEMENT, os.urandom(self.size)
        put = ["SET", self.key] if self.native else ["AI.TENSORSET", self.key, "DOUBLE", str(elements), "BLOB"]
        get = ["GET", self.key] if self.native else ["AI.TENSORGET", self.key, "META", "BLOB"]
        self.requests = {"put": _encoded([*put, blob]), "get": _encoded(get)}
        self.sock = _connected(self.address)
        self.memory = memoryview(bytearray(self.size + 4096))
        self.put()
        self.reply = self._reply_size()

    def close(self):
        self.sock.close()

    def put(self):
        self.sock.sendall(self.requests["put"])
        if self.sock.recv_into(self.memory, 64) != 5 or bytes(self.memory[:5]) != b"+OK\r\n":
            raise RuntimeError(bytes(self.memory[:64]))

    def get(self):
        self.sock.sendall(self.requests["get"])
        got = 0
        while got < self.reply:
            got += self._more(got)

    def _more(self, got):
        """How many bytes have come into the memory, behind those that it has."""
        size = self.sock.recv_into(self.memory[got:])
        if not size:
            raise ConnectionResetError("the server has gone")
        return size

    def _reply_size(self):
        """How many bytes the reply to ``get`` has."""
        self.sock.sendall(self.requests["get"])
        got = 0
        while not (found := BLOB.search(self.memory[:got])):
            got += self._more(got)
        whole = found.end() + int(found[1]) + 2
        while got < whole:
            got += self._more(got)
        return whole


def _encoded(words):
    words = [word if isinstance(word, bytes) else word.encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _connected(address):
    if address.startswith("unix://"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address.removeprefix("unix://"))
        return sock
    host, port = address.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Arrays(Blocking):
    """Blocking clients that have ``put_tensor`` and ``get_tensor``."""

    def open(self):
        import numpy as np

        self.array = np.random.default_rng(0).random(self.size // ELEMENT)
        self.client = self.connect()

    def put(self):
        self.client.put_tensor(self.key, self.array)

    def get(self):
        self.client.get_tensor(self.key)


class AsimSync(Arrays):
    """``asim.SyncClient``."""

    def connect(self):
        from asim import SyncClient

        return SyncClient(self.address)

    def close(self):
        self.client.close()


class SmartRedis(Arrays):
    """The real one."""

    def connect(self):
        from smartredis import Client

        os.environ.update(SSDB=self.address, SR_DB_TYPE="Standalone")
        return Client()

    def close(self):
        del self.client


class Async:
    """Any number of tasks, each of which calls a coroutine function again and again with a key of its own."""

    def __init__(self, job):
        self.address, self.size, self.key = job["address"], job["size"], job["key"]
        self.loop, self.opened = asyncio.new_event_loop(), False

    async def open(self):
        """Connect."""

    def close(self):
        """End the connections."""
        self.loop.run_until_complete(self.client.aclose())
        self.loop.close()

    def timed(self, job):
        """The number of calls, when they began and ended, and the processor's time."""
        return self.loop.run_until_complete(self._timed(job))

    async def _timed(self, job):
        if not self.opened:
            await self.open()
            self.opened = True
        call, keys = getattr(self, job["verb"]), [f"{self.key}.{i}" for i in range(job["tasks"])]
        for key in keys:
            await self.put(key)
        await self._all(call, keys, job["warm"], 1)
        cpu, began = time.process_time(), time.perf_counter()
        done = await self._all(call, keys, job["seconds"], job["least"])
        return done, began, time.perf_counter(), time.process_time() - cpu

    async def _all(self, call, keys, seconds, least):
        async def one(key):
            done = 0
            while done < least or time.perf_counter() < until:
                await call(key)
                done += 1
            return done

        until = time.perf_counter() + seconds
        return await one(keys[0]) if len(keys) == 1 else sum(await asyncio.gather(*map(one, keys)))


class Asim(Async):
    """``asim.Client``."""

    async def open(self):
        import numpy as np

        import asim

        self.array = np.random.default_rng(0).random(self.size // ELEMENT)
        self.client = asim.Client(self.address)

    async def put(self, key):
        await self.client.put_tensor(key, self.array)

    async def get(self, key):
        await self.client.get_tensor(key)


class RedisPy(Async):
    """redis-py, which gets and gives plain bytes."""

    async def open(self):
        import redis.asyncio

        self.blob, self.elements = os.urandom(self.size), self.size // ELEMENT
        if self.address.startswith("unix://"):
            place = {"unix_socket_path": self.address.removeprefix("unix://")}
        else:
            host, port = self.address.rsplit(":", 1)
            place = {"host": host, "port": int(port)}
        self.client = redis.asyncio.Redis(**place, single_connection_client=True)

    async def put(self, key):
        await self.client.execute_command("AI.TENSORSET", key, "DOUBLE", self.elements, "BLOB", self.blob)

    async def get(self, key):
        await self.client.execute_command("AI.TENSORGET", key, "META", "BLOB")


KINDS = {"raw": Raw, "asim": Asim, "asim-sync": AsimSync, "redis-py": RedisPy, "smartredis": SmartRedis}


def main():
    """Do what the lines of standard input ask for."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        job = json.loads(line)
        try:
            os.sched_setaffinity(0, job["cores"])
            client = KINDS[sys.argv[1]](job)
            done, began, ended, cpu = client.timed(job)
            client.close()
            answer = {"ops": done, "began": began, "ended": ended, "cpu_s": cpu}
        except Exception as exc:  # noqa: BLE001  (whatever it is, the table says so)
            answer = {"error": f"{type(exc).__name__}: {exc}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
