"""One client of :mod:`inference`, in a process of its own, or a framework in the place of one.

A line of JSON tells it what to time; it answers when it is warm, waits for the next line, and answers what it measured.
Only what its kind needs is imported: SmartRedis runs in another interpreter, which knows nothing of asim.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time

import tensor_worker
from inference_frameworks import in_process

INPUT = "x"
PAUSE_S = 0.01
"""Before a call: the threads of a framework may wait busily for a while after the last one."""
LIMIT_MS = 60_000_000
"""What SmartRedis's clients send as TIMEOUT."""


def _timed(call, seconds):
    """When each call ended; the first is when they began."""
    now = time.perf_counter
    stamps = [now()]
    until = stamps[0] + seconds
    while stamps[-1] < until:
        call()
        stamps.append(now())
    return stamps


class Timed:
    """Times a blocking client's ``put`` or ``run``."""

    def warm(self, job):
        self.job = job
        self.call = self.put if job["verb"] == "put" else self.run
        _timed(self.call, job["warm"])

    def timed(self):
        return [_timed(self.call, self.job["seconds"])]


class Raw(Timed, tensor_worker.Raw):
    """Requests that are ready, replies that nobody looks at."""

    def warm(self, job):
        script = job["function"]
        head = ["AI.SCRIPTRUN", job["model"], script] if script else ["AI.MODELEXECUTE", job["model"]]
        counts = [[], []] if script else [["1"], ["1"]]
        tail = [] if script else ["TIMEOUT", str(LIMIT_MS)]
        words = [*head, "INPUTS", *counts[0], INPUT, "OUTPUTS", *counts[1], f"{self.key}.y", *tail]
        self.requests["run"] = tensor_worker._encoded(words)
        super().warm(job)

    def put(self):
        self._say("put")

    def run(self):
        self._say("run")

    def _say(self, what):
        self.sock.sendall(self.requests[what])
        if self.sock.recv_into(self.memory, 64) != 5 or bytes(self.memory[:5]) != b"+OK\r\n":
            raise RuntimeError(bytes(self.memory[:64]))


class Arrays(Timed):
    """Blocking clients that have ``run_model`` and ``run_script``."""

    def run(self):
        job, output = self.job, f"{self.key}.y"
        if job["function"]:
            self.client.run_script(job["model"], job["function"], [INPUT], [output])
        else:
            self.client.run_model(job["model"], inputs=[INPUT], outputs=[output])


class AsimSync(Arrays, tensor_worker.AsimSync):
    """``asim.SyncClient``."""


class SmartRedis(Arrays, tensor_worker.SmartRedis):
    """The real one."""


class Asim(tensor_worker.Asim):
    """``asim.Client``, with any number of tasks."""

    def warm(self, job):
        self.job = job
        self.loop.run_until_complete(self._warm())

    async def _warm(self):
        await self.open()
        self.call = self.put if self.job["verb"] == "put" else self.run
        await self._tasks(self.job["warm"])

    def timed(self):
        return self.loop.run_until_complete(self._tasks(self.job["seconds"]))

    async def _tasks(self, seconds):
        return await asyncio.gather(*[self._one(f"{self.key}.{i}", seconds) for i in range(self.job["tasks"])])

    async def _one(self, key, seconds):
        now = time.perf_counter
        stamps = [now()]
        until = stamps[0] + seconds
        while stamps[-1] < until:
            await self.call(key)
            stamps.append(now())
        return stamps

    async def run(self, key):
        job = self.job
        if job["function"]:
            await self.client.run_script(job["model"], job["function"], [INPUT], [f"{key}.y"])
        else:
            await self.client.run_model(job["model"], [INPUT], [f"{key}.y"])


class Framework(Timed):
    """No client: the framework itself."""

    def __init__(self, job):
        self.job = job

    def warm(self, job):
        import numpy as np

        function = in_process(job["backend"], job["path"], job["threads"])
        array = np.load(job["array"])
        self.call = lambda: function(array)
        _timed(self.call, job["warm"])

    def close(self):
        """Nothing to end."""


class Beside:
    """A framework in process and the same model in the database, in turns: what else the machine does falls on both."""

    def __init__(self, job):
        self.job = job

    def warm(self, job):
        import numpy as np

        from asim import SyncClient

        array = np.load(job["array"])
        function, client = in_process(job["backend"], job["path"], job["threads"]), SyncClient(job["address"])

        def run():
            client.run_model(job["model"], [INPUT], ["y"])

        def everything():
            client.put_tensor(INPUT, array)
            run()
            return client.get_tensor("y")

        self.client, self.ways = client, {"alone": lambda: function(array), "run": run, "put_run_get": everything}
        np.testing.assert_allclose(everything(), function(array), rtol=1e-3, atol=1e-4)

    def timed(self):
        """Milliseconds of each way."""
        until, turns = time.perf_counter() + self.job["seconds"], []
        while time.perf_counter() < until:
            turns.append({name: self._once(way) for name, way in list(self.ways.items())[:: 1 - 2 * (len(turns) % 2)]})
        return {name: [turn[name] for turn in turns] for name in self.ways}

    @staticmethod
    def _once(way):
        time.sleep(PAUSE_S)
        began = time.perf_counter()
        way()
        return (time.perf_counter() - began) * 1e3

    def close(self):
        self.client.close()


KINDS = {"raw": Raw, "asim": Asim, "asim-sync": AsimSync, "smartredis": SmartRedis, "framework": Framework,
         "beside": Beside}  # fmt: skip


def _measured(tasks):
    """Operations, seconds and latencies of all tasks together."""
    latencies = sorted(after - before for one in tasks for before, after in itertools.pairwise(one))
    seconds = sum(one[-1] - one[0] for one in tasks) / len(tasks)
    p50, p99 = (latencies[int(len(latencies) * share)] * 1e6 for share in (0.5, 0.99))
    return {"ops": len(latencies), "ops_s": len(latencies) / seconds, "p50_us": p50, "p99_us": p99}


def main():
    """Do what the lines of standard input ask for."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        try:
            client = KINDS[sys.argv[1]](job := json.loads(line))
            client.warm(job)
            print("{}", file=answers, flush=True)
            sys.stdin.readline()
            cpu = time.process_time()
            found = client.timed()
            cpu = time.process_time() - cpu
            answer = found if isinstance(found, dict) else {**_measured(found), "cpu_s": cpu}
            client.close()
        except Exception as exc:  # noqa: BLE001  (whatever it is, the table says so)
            answer = {"error": f"{type(exc).__name__}: {exc}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
