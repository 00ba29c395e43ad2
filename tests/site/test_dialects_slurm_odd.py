"""Slurm's words against a real Slurm: paths of all kinds, answers that are lost, dependencies that failed."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from asim.launchers.dialect import Batch, Command, SchedulerError
from asim.launchers.slurm import Slurm
from asim.settings import BatchContext, SbatchSettings, SrunSettings, StepContext
from asim.settings.script import Places
from tests.servers import until
from tests.site.asking import Asker
from tests.site.slurm import SlurmSite
from tests.site.test_dialects_slurm import C, X, asked

ODD = ["%j %t.out", "a%%b#c", "%n%s%N%J%u%A%a%x%b%5t", "$USER", "it's #1"]


@pytest.fixture
def user(slurm: SlurmSite, tmp_path: Path) -> Asker:
    """A user of Slurm without accounting."""
    return Asker(Slurm(), slurm, tmp_path)


class NoWayBack:
    """A way to the controller on which requests arrive and answers do not.

    :param way: what the client sees: ``close``, ``reset``, or nothing for as long as it waits (``hang``).
    """

    def __init__(self, slurm: SlurmSite, directory: Path, way: str) -> None:
        text = slurm.conf.read_text()
        found = re.search(r"^SlurmctldPort=(\d+)$", text, re.MULTILINE)
        assert found is not None
        self._address, self._port, self._way = slurm.address, int(found[1]), way
        self._server = socket.create_server((slurm.address, 0))
        self.conf = directory / "slurm.conf"
        self.conf.write_text(text.replace(found[0], f"SlurmctldPort={self._server.getsockname()[1]}"))
        self._thread = threading.Thread(target=self._serve)
        self.left = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.left.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(20)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client = self._server.accept()[0]
                with client, socket.create_connection((self._address, self._port), 10) as controller:
                    self._one(client, controller)

    def _one(self, client: socket.socket, controller: socket.socket) -> None:
        client.settimeout(1)
        with suppress(TimeoutError):  # the client keeps it open, to be answered
            while data := client.recv(1 << 16):
                controller.sendall(data)
        assert controller.recv(1 << 16)
        if self._way == "hang":
            self.left.wait(20)
        elif self._way == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_what_waits_for_ever_is_over(user: Asker) -> None:
    """A job whose dependency failed ends, with the reason, and does not stay in the queue; nor do such tasks alone."""
    half = user.take(user.batch("exit $((SLURM_ARRAY_TASK_ID % 2))", asked(), size=2))
    failed = user.take(user.batch("false", asked()))
    never = user.take(user.batch("true", asked(dependency=f"afterok:{failed}")))
    array = user.take(user.batch("true", asked(dependency=f"afterok:{failed}"), size=3))
    mixed = user.take(user.batch("true", asked(dependency=f"aftercorr:{half}"), size=2))
    tasks = [user.dialect.task(array, index) for index in range(3)]
    ends = {never: X, **dict.fromkeys(tasks, X), f"{mixed}_0": C, f"{mixed}_1": X}
    found = user.until_states(ends)
    words = "DependencyNeverSatisfied: a job that it depends on did not end as it must"
    assert {found[job].reason for job, state in ends.items() if state is X} == {words}
    stuck = user.dialect.lingering(found)
    assert sorted(stuck) == sorted([never, array, f"{mixed}_1"])
    user.cancel(*stuck)
    until(lambda: user.dialect.lingering(user.status(never, array, mixed)) == [], 20)
    assert user.dialect.lingering(user.status(failed, half)) == []


@pytest.mark.parametrize("way", ["close", "reset", "hang"])
def test_the_way_back_breaks(user: Asker, slurm: SlurmSite, tmp_path: Path, way: str) -> None:
    """A submit that the controller takes, and whose answer is lost, is no refusal; it is found by its mark."""
    batch = user.batch("sleep 600", asked())
    with NoWayBack(slurm, tmp_path, way) as broken:
        done = user.run(Command(("env", f"SLURM_CONF={broken.conf}", *user.dialect.submit(batch).argv)))
    assert done.code == 1
    with pytest.raises(SchedulerError):
        user.dialect.submitted(done)
    assert batch.mark in user.find(batch.mark)


@pytest.mark.parametrize("name", [*ODD, "a\\b%j", "a\\%t\"b'#.out"])
def test_output_of_a_batch_job(user: Asker, tmp_path: Path, name: str) -> None:
    """Nothing in a path is replaced, dropped or taken for a comment, nor in other options."""
    place = tmp_path / "pc_%t"
    place.mkdir()
    places = Places(ends=str(tmp_path), stops=str(tmp_path), mark="m")
    context = BatchContext(name=name, stdout=f"{place}/{name}", stderr=f"{place}/{name}.err", places=places)
    settings = SbatchSettings(batch_args={"comment": "a\\b #c"})
    script = tmp_path / "script.sh"
    script.write_text("\n".join(["#!/bin/sh", *settings.directives(context), "echo out; echo err >&2"]))
    job = user.take(Batch(name=name, mark="m", script=str(script), settings=settings))
    user.until_states({job: C})
    assert [(place / f"{name}{end}").read_text() for end in ("", ".err")] == ["out\n", "err\n"]
    line = user.site.run("squeue", "--states=all", f"--jobs={job}", "--noheader", "--format=%k|%j").stdout
    assert line == f"a\\b #c|{name}\n"


@pytest.mark.parametrize("name", ODD)
def test_output_of_a_step(slurm: SlurmSite, tmp_path: Path, name: str) -> None:
    """srun writes where it is said to: one that cannot open its output would end with 0, without having run anything."""
    place = tmp_path / "pc_%t"
    place.mkdir()
    context = StepContext(
        name=name, cwd=str(place), stdout=f"{place}/{name}", stderr=f"{place}/{name}.err", exe="/bin/sh",
        exe_args=("-c", "echo out; echo err >&2"), launcher="slurm",
    )  # fmt: skip
    argv = SrunSettings("/bin/sh", run_args={"n": 1}).step(context).argv
    subprocess.run(argv, env=slurm.env, cwd=place, timeout=30, check=True)
    assert [(place / f"{name}{end}").read_text() for end in ("", ".err")] == ["out\n", "err\n"]
