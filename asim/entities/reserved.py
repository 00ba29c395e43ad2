"""Arguments of run and batch commands that asim itself gives when it starts a database."""

_MPI = frozenset({"np", "N", "c", "output-filename", "n", "wdir", "wd", "host"})
_SRUN = frozenset({
    "nodes", "N", "ntasks", "n", "ntasks-per-node", "output", "o", "error", "e", "job-name", "J", "jobid", "multi-prog",
    "w", "chdir", "D",
})  # fmt: skip
_JSRUN = frozenset({
    "chdir", "h", "stdio_stdout", "o", "stdio_stderr", "k", "tasks_per_rs", "a", "np", "p", "cpu_per_rs", "c",
    "gpu_per_rs", "g", "latency_priority", "l", "memory_per_rs", "m", "nrs", "n", "rs_per_host", "r", "rs_per_socket",
    "K", "appfile", "f", "allocate_only", "A", "launch_node_task", "H", "use_reservation", "J", "use_resources", "bind",
    "b", "launch_distribution", "d",
})  # fmt: skip

RUN_ARGS = {
    "srun": _SRUN,
    "mpirun": _MPI,
    "mpiexec": _MPI,
    "orterun": _MPI,
    "aprun": frozenset({"pes", "n", "pes-per-node", "N", "l", "pes-per-numa-node", "S", "wdir"}),
    "jsrun": _JSRUN,
}
BATCH_ARGS = {
    "slurm": _SRUN,
    "pbs": frozenset({"e", "o", "N", "l"}),
    "pals": frozenset({"e", "o", "N", "l"}),
    "lsf": frozenset({"J", "o", "e", "m", "n", "nnodes"}),
}
