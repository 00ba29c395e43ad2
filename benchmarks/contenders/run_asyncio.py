"""Stock asyncio: ``create_subprocess_exec``, as many workers as members in flight."""

import asyncio

from meter import Meter


async def worker(meter, numbers, codes):
    for number in numbers:
        path = meter.make(number)
        with open(f"{path}/out", "wb") as out, open(f"{path}/err", "wb") as err:
            process = await asyncio.create_subprocess_exec(*meter.argv, cwd=path, stdout=out, stderr=err)
        codes.append(await process.wait())


async def main(meter):
    codes, numbers = [], iter(range(meter.n))
    with meter.timed():
        await asyncio.gather(*(worker(meter, numbers, codes) for _ in range(meter.in_flight)))
    meter.check(codes)
    meter.emit()


if __name__ == "__main__":
    asyncio.run(main(Meter()))
