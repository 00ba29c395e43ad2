"""libEnsemble, local processes as workers, pregenerated work; its workers come up inside the timed part."""

import os

from meter import Meter

if __name__ == "__main__":
    meter = Meter()

import numpy as np
from libensemble import Ensemble
from libensemble.alloc_funcs.give_pregenerated_work import give_pregenerated_sim_work
from libensemble.executors import Executor
from libensemble.specs import AllocSpecs, ExitCriteria, LibeSpecs, SimSpecs


def simulate(_history, persis_info, _specs, info):
    task = info["executor"].submit(app_name="task", app_args=" ".join(meter.argv[1:]), stdout="out", stderr="err")
    task.wait()
    out = np.zeros(1, dtype=[("code", float)])
    out["code"] = task.errcode
    return out, persis_info


def ensemble():
    executor = Executor()
    executor.register_app(full_path=meter.argv[0], app_name="task")
    given = np.zeros(meter.n, dtype=[("x", float), ("sim_id", int), ("sim_started", bool)])
    given["x"] = given["sim_id"] = range(meter.n)
    specs = LibeSpecs(
        nworkers=meter.in_flight,
        comms="local",
        sim_dirs_make=True,
        ensemble_dir_path=meter.root + "/ensemble",
        disable_log_files=True,
        save_H_and_persis_on_abort=False,
        gen_on_manager=True,
    )
    made = Ensemble(libE_specs=specs)
    made.sim_specs = SimSpecs(sim_f=simulate, inputs=["x"], out=[("code", float)])
    made.alloc_specs = AllocSpecs(alloc_f=give_pregenerated_sim_work)
    made.exit_criteria = ExitCriteria(sim_max=meter.n)
    made.H0, made.executor = given, executor
    return made


if __name__ == "__main__":
    os.chdir(meter.root)
    prepared = ensemble()
    with meter.timed():
        history, _, _ = prepared.run()
    ended = history[history["sim_ended"]]
    meter.result["bad"] = int(meter.n - len(ended) + (ended["code"] != 0).sum())
    meter.emit()
