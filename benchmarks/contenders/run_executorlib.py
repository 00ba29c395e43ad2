"""executorlib with its warm workers (``block_allocation``), which are up before the clock starts."""

from meter import Meter


def run(argv, path):
    import subprocess

    with open(path + "/out", "wb") as out, open(path + "/err", "wb") as err:
        return subprocess.run(argv, cwd=path, stdout=out, stderr=err, check=False).returncode


def main():
    meter = Meter()
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=meter.in_flight, block_allocation=True) as executor:
        for future in [executor.submit(pow, 2, 3) for _ in range(3 * meter.in_flight)]:
            future.result()
        with meter.timed():
            futures = [executor.submit(run, meter.argv, meter.make(number)) for number in range(meter.n)]
            codes = [future.result() for future in futures]
        meter.check(codes)
        meter.emit()


if __name__ == "__main__":
    main()
