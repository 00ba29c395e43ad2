"""SmartSim's local launcher at its best: telemetry off, 1 s polls. It has no limit on what is in flight."""

import os
import time

from meter import Meter

os.environ.update(SMARTSIM_FLAG_TELEMETRY="0", SMARTSIM_JM_INTERVAL="1", SMARTSIM_LOG_LEVEL="quiet")


def main():
    meter = Meter()
    from smartsim import Experiment

    exp = Experiment("bench", exp_path=meter.root, launcher="local")
    settings = exp.create_run_settings(meter.argv[0], exe_args=meter.argv[1:])
    with meter.timed():
        begin = time.perf_counter()
        ensemble = exp.create_ensemble("ens", replicas=meter.n, run_settings=settings)
        planned = time.perf_counter()
        exp.generate(ensemble, overwrite=True)
        generated = time.perf_counter()
        exp.start(ensemble, block=False, summary=False)
        submitted = time.perf_counter()
        exp.poll(interval=1, verbose=False)
        done = time.perf_counter()
        states = exp.get_status(ensemble)
    meter.result.update(
        plan_s=planned - begin, generate_s=generated - planned, submit_s=submitted - generated, run_s=done - submitted
    )
    meter.result["bad"] = sum("Completed" not in str(getattr(state, "value", state)) for state in states)
    meter.emit()


if __name__ == "__main__":
    main()
    os._exit(0)
