"""Several programs of one step on a real Slurm: ``srun --multi-prog``, with the file that asim writes."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable
from importlib import import_module

import anyio
import pytest

from asim import Experiment, SrunSettings
from tests.integration.ssh import SSHServer, need_sshd
from tests.site.experiments import Allocated, C, F, Lab, allocation, anyio_backend, ends, lab

__all__ = ["allocation", "anyio_backend", "lab"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
ODD = [
    "", "two words", " around ", "it's", "'", "''", '"', 'a "b" c', "\\", "\\\\", "end\\", "\\'", "$HOME", "`x`", "*", "~",
    "#", "# no", "%", "%t", "%o", "%%t", "%d", "\\%t", "'%t'", "100%", "tab\there", "cr\rhere", "\x0b\x0c", "é", "\udcff",
    ":", ";", "a=b", "-", "--multi-prog", "\u2028", "last\\",
]  # fmt: skip
SHOW = (
    'import os, sys; print(ascii([int(os.environ["SLURM_PROCID"]), *map(os.environ.get, ("V", "W")), *sys.argv[1:]]))'
)


def show(lab: Lab, name: str, args: Iterable[str], tasks: int, **env: str) -> SrunSettings:
    """A program that prints its rank, two variables and its arguments."""
    return SrunSettings(lab.script(name, f"exec python3 -c '{SHOW}' \"$@\""), list(args), {"n": tasks}, env)


def said(text: str) -> list[list[object]]:
    """What such programs printed, by rank."""
    return sorted((ast.literal_eval(line) for line in text.splitlines()), key=lambda row: row[0])


async def test_arguments_and_ranks(lab: Lab, allocation: Allocated) -> None:
    """Whatever is in arguments and variables arrives as it is, in every program, and ranks are in their order."""
    value = "a,b 'c' \"d\" %t\n\\e"
    first = show(lab, "first", ODD, 3, V=value)
    first.make_mpmd(show(lab, "with blank", [*reversed(ODD), ""], 2, W="w"))
    first.make_mpmd(show(lab, "third", [], 1))
    first.set_multi_prog()
    async with lab.experiment() as exp:
        with anyio.fail_after(30):
            group = await exp.start(exp.create_model("m", first))
    assert ends(group) == [(C, 0)], group[0].stderr.read_text()
    rows = [*([rank, value, "w", *ODD] for rank in range(3)), *([rank, value, "w", *ODD[::-1], ""] for rank in (3, 4))]
    assert said(group[0].stdout.read_text()) == [*rows, [5, value, "w"]]


async def test_most_arguments(lab: Lab, allocation: Allocated) -> None:
    """As many arguments as are not refused arrive: Slurm cuts off others without a word."""
    args = [str(number) for number in range(126)]
    first = show(lab, "first", args, 1)
    first.make_mpmd(show(lab, "second", args, 1))
    first.set_multi_prog()
    async with lab.experiment() as exp:
        with anyio.fail_after(30):
            group = await exp.start(exp.create_model("m", first))
    assert said(group[0].stdout.read_text()) == [[0, None, None, *args], [1, None, None, *args]]


async def test_code_of_one_program(lab: Lab, allocation: Allocated) -> None:
    """One program that fails is seen, and the others come to their own end; so is one that is not there."""
    async with lab.experiment() as exp:
        models = []
        for name, bad in (("fails", SrunSettings("/bin/sh", ["-c", "exit 7"])), ("absent", SrunSettings("/no/where"))):
            first = SrunSettings("/bin/sh", ["-c", "sleep 0.5; echo here"])
            first.make_mpmd(bad)
            first.set_multi_prog()
            models.append(exp.create_model(name, first))
        with anyio.fail_after(30):
            group = await exp.start(*models)
    assert ends(group) == [(F, 7), (F, 2)]
    assert [job.stdout.read_text() for job in group] == ["here\n"] * 2
    assert "/no/where" in group[1].stderr.read_text()


async def test_in_batch_jobs(lab: Lab) -> None:
    """Members of an array have a file each, and are one step of the nodes that they asked for."""
    async with lab.experiment() as exp:
        first = show(lab, "first", ["one"], 2)
        first.make_mpmd(show(lab, "second", ["it's two"], 2))
        first.set_multi_prog()
        first.set_nodes(2)
        ensemble = exp.create_ensemble(
            "e", replicas=2, run_settings=first, batch_settings=lab.batch(nodes=2, ntasks=4), pack="array"
        )
        ensemble.models[1].run_settings.add_exe_args(["more"])
        with anyio.fail_after(40):
            group = await exp.start(ensemble)
    assert ends(group) == [(C, 0)] * 2, [job.stderr.read_text() for job in group]
    for job, args in zip(group, (["one"], ["one", "more"]), strict=True):
        rows = [
            [0, None, None, *args],
            [1, None, None, *args],
            [2, None, None, "it's two"],
            [3, None, None, "it's two"],
        ]
        assert said(job.stdout.read_text()) == rows


async def test_over_ssh(lab: Lab, allocation: Allocated) -> None:
    """The file is written where the job runs."""
    need_sshd()
    await anyio.to_thread.run_sync(import_module, "asim.transport.ssh")  # it looks for libraries, by commands
    server = await anyio.to_thread.run_sync(SSHServer, lab.place / "sshd")
    try:
        async with Experiment(
            "far", f"{server.home}/far", launcher="slurm", host="127.0.0.1", ssh=server.options(), stop_grace=2
        ) as exp:
            first = show(lab, "first", ["a b"], 1)
            first.make_mpmd(show(lab, "second", ["c"], 1))
            first.set_multi_prog()
            first.alloc = allocation.id
            conf = f"export SLURM_CONF={lab.site.conf}"
            first.run_command = lab.script("srun-there", f'{conf}; exec {shutil.which("srun")} "$@"')
            with anyio.fail_after(40):
                group = await exp.start(exp.create_model("m", first))
                lines = "\n".join([line async for line in exp.follow(group[0].model)])
        assert (group[0].status, said(lines)) == (C, [[0, None, None, "a b"], [1, None, None, "c"]])
    finally:
        await anyio.to_thread.run_sync(server.stop)
