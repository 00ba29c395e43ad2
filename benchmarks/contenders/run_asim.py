"""asim as a user would run it: member directories, output files, the journal, records, and somebody who reads all events.

The agent is up before the clock starts, as the workers of the peers are; ``bring_up_s`` says what that costs.
"""

import asyncio
import time

from meter import Meter


class Stopwatch:
    """The time spent inside some coroutine methods, which it wraps."""

    def __init__(self):
        self.seconds = 0.0

    def wrap(self, kind, name):
        function = getattr(kind, name)

        async def timed(*args, **kwargs):
            begin = time.perf_counter()
            try:
                return await function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begin

        setattr(kind, name, timed)


async def read(stream, wanted):
    """Read events until ``wanted`` jobs have ended."""
    seen = missed = ended = 0
    async for event in stream:
        seen, missed, ended = seen + 1, missed + event.missed, ended + event.state.terminal
        if ended == wanted:
            break
    return seen, missed


async def main(meter):
    import asim
    from asim.runtime import session

    exp = asim.Experiment("bench", exp_path=meter.root, launcher=meter.launcher, max_concurrent=meter.in_flight)
    async with exp:
        settings = exp.create_run_settings(meter.argv[0], meter.argv[1:])
        await exp.start(exp.create_model("warm", exp.create_run_settings("/bin/true")))
        planning = Stopwatch()
        planning.wrap(session, "plan_generate")
        planning.wrap(session, "plan_start")
        stream = exp.events(buffer=10 * meter.n)
        reader = asyncio.create_task(read(stream, meter.n))
        with meter.timed():
            group, marks = await measure(exp, settings, meter.n, planning)
            records = group.records()
            seen, missed = await reader
            marks.append(time.time())
        meter.result.update(stages(marks, planning, group), events=seen, events_missed=missed)
        meter.check([record["returncode"] for record in records], "ens/ens_{0}/ens_{0}.out", "ens/ens_{0}/ens_{0}.err")
        meter.emit()


async def measure(exp, settings, n, planning):
    """Run the ensemble; the group, and when each step was done."""
    marks = [time.time()]
    ensemble = exp.create_ensemble("ens", replicas=n, run_settings=settings)
    planning.seconds += time.time() - marks[0]
    await exp.generate(ensemble)
    marks += [time.time(), planning.seconds]
    group = await exp.start(ensemble, block=False)
    marks.append(time.time())
    await group
    marks.append(time.time())
    return group, marks


def stages(marks, planning, group):
    """Seconds of each stage. Members run while others are still being submitted; ``run`` is what comes after."""
    begin, generated, planned, submitted, noticed, collected = marks
    ended = max(group.ended_at.timestamp(), submitted)
    return {
        "plan_s": planning.seconds,
        "generate_s": generated - begin - planned,
        "submit_s": submitted - generated - (planning.seconds - planned),
        "run_s": ended - submitted,
        "notice_s": noticed - ended,
        "collect_s": collected - noticed,
    }


if __name__ == "__main__":
    asyncio.run(main(Meter()))
