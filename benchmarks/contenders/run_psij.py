"""PSI/J's local executor. It has no limit on what is in flight."""

import os
from pathlib import Path

from meter import Meter


def main():
    meter = Meter()
    from psij import Job, JobExecutor, JobSpec

    executor = JobExecutor.get_instance("local")
    with meter.timed():
        jobs = []
        for number in range(meter.n):
            path = Path(meter.make(number))
            spec = JobSpec(
                executable=meter.argv[0],
                arguments=meter.argv[1:],
                directory=path,
                stdout_path=path / "out",
                stderr_path=path / "err",
            )
            jobs.append(Job(spec))
            executor.submit(jobs[-1])
        for job in jobs:
            job.wait()
    meter.check([job.status.exit_code for job in jobs])
    meter.emit()


if __name__ == "__main__":
    main()
    os._exit(0)  # its threads would keep the interpreter
