"""Parsl's HighThroughputExecutor and bash apps; its workers are up before the clock starts."""

import shlex

from meter import Meter


def main():
    meter = Meter()
    import parsl
    from parsl import bash_app
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    @bash_app
    def task(command, stdout=None, stderr=None):
        return command

    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    workers = HighThroughputExecutor(
        address="127.0.0.1", max_workers_per_node=meter.in_flight, cores_per_worker=0.01, provider=provider
    )
    with parsl.load(Config(executors=[workers], run_dir=meter.root + "/runinfo", usage_tracking=0)):
        for future in [task("sleep 0.1") for _ in range(2 * meter.in_flight)]:
            future.result()
        command = shlex.join(meter.argv)
        with meter.timed():
            futures = []
            for number in range(meter.n):
                path = meter.directory(number)
                futures.append(task(f"cd {path} && {command}", stdout=path + "/out", stderr=path + "/err"))
            codes = [future.result() for future in futures]
        meter.check(codes)
        meter.emit()


if __name__ == "__main__":
    main()
