"""Files that come from a far host: all that can, nothing else, nowhere else, and not for ever."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from asim import Experiment
from asim.errors import AgentError, FileActionError
from asim.runtime import written
from asim.status import JobState
from asim.transport.far import FarHost
from tests.integration.conftest import sh, until
from tests.integration.ssh import Proxy, SSHServer, need_sshd
from tests.integration.ssh import sshd as sshd
from tests.integration.ssh_server import FaultyServer
from tests.integration.test_ssh import connected
from tests.integration.test_ssh_server_faults import anyio_backend as anyio_backend
from tests.integration.test_ssh_server_faults import server as server

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def far(sshd: SSHServer, name: str, port: int | None = None, **ssh: Any) -> Experiment:
    """One on that host, in a directory of this test's own."""
    place = Path.cwd() / "far" / name
    return Experiment(name, exp_path=place, host="127.0.0.1", ssh=sshd.options(port, **ssh), stop_grace=1)


@pytest.fixture
def crooked(tmp_path_factory):
    """A server where programs in ``bin`` come before the real ones."""
    need_sshd()
    server = SSHServer(tmp_path_factory.mktemp("crooked") / "sshd")
    (server.place / "bin").mkdir()
    (server.home / ".bash_profile").write_text(f"export PATH={server.place}/bin:$PATH\n")
    yield server
    server.stop()


def program(server: SSHServer, name: str, script: str) -> None:
    """Put one there that is run instead of the real one."""
    path = server.place / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


FIND = """
/usr/bin/find "$@" || exit
for name in {names}; do printf '%s/%s\\0' "$1" "$name"; done
"""


async def test_a_host_that_names_files_elsewhere(crooked, home, caplog):
    """A login node that somebody has taken over must not write wherever it likes on the user's own machine."""
    names = ["../victim.dat", "sub/../../victim.dat", "./good.dat", f"/{home}/far/victim.dat", "sub//deep.dat"]
    program(crooked, "find", FIND.format(names=" ".join(names)))
    async with far(crooked, "evil", fetch=["*.dat"]) as exp:
        line = "mkdir sub; echo 1 > good.dat; echo 2 > sub/deep.dat; echo owned > ../victim.dat"
        await exp.start(sh(exp, "m", line))
        (home / "victim.dat").write_text("mine")
        with caplog.at_level(logging.WARNING, "asim"):
            paths = await exp.fetch()
    assert sorted(paths) == [home / "evil/good.dat", home / "evil/sub/deep.dat"]
    assert [path.read_text() for path in sorted(paths)] == ["1\n", "2\n"]
    assert (home / "victim.dat").read_text() == "mine"
    assert all(repr(f"{home}/far/evil/{name}") in caplog.text for name in names)


async def test_a_directory_that_leads_out(sshd, home, caplog):
    """Also the directory of a job may have dots in it; what is not below the experiment's has no place here."""
    (home / "far/out").mkdir(parents=True)
    (home / "far/x.dat").write_text("x")
    async with far(sshd, "out", fetch=["*.dat"]) as exp:
        await exp.start(sh(exp, "m", "echo y > y.dat"))
        host = exp._launching.far
        assert host is not None
        (home / "far/out/sub").mkdir()
        places = [f"{home}/far/out/..", f"{home}/far/out/sub/.."]
        assert await host.fetch([], places, f"{home}/here") == [f"{home}/here/y.dat"]
    assert not (home / "x.dat").exists()
    assert "x.dat' would be written outside of" in caplog.text


async def test_output_that_is_being_written(sshd, home):
    """Of a file that grows while it is fetched comes what it was before; the job need not stop for that."""
    there, here = home / "far/grow/m.out", home / "grow/m.out"
    async with far(sshd, "grow") as exp:
        model = sh(exp, "m", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.005; done")
        await exp.start(model, block=False)
        await until(lambda: there.exists() and there.stat().st_size > 50)
        sizes = []
        with anyio.fail_after(30):
            for _ in range(4):
                assert await exp.fetch() == [home / "grow/m.err", here]
                assert there.read_bytes().startswith(here.read_bytes())
                sizes.append(here.stat().st_size)
    assert 50 < sizes[0] < sizes[1] < sizes[2] < sizes[3] < there.stat().st_size
    assert here.read_bytes() == there.read_bytes()
    assert not list((home / "grow").glob(".*"))


async def test_files_that_vanish(crooked, home):
    """What was found and is gone when it is to be fetched was a file that nobody keeps; the others come."""
    program(crooked, "find", FIND.format(names="gone.dat sub/gone.dat"))
    async with far(crooked, "gone", fetch=["*.dat"]) as exp:
        await exp.start(sh(exp, "m", "echo 1 > good.dat"))
        assert await exp.fetch() == [home / "gone/good.dat"]
    assert (home / "gone/good.dat").read_text() == "1\n"


async def test_output_that_cannot_be_read(sshd, home, monkeypatch):
    """One output file that is no file, or vanished, keeps no other away; and the words tell the one from the other."""
    async with far(sshd, "bad") as exp:
        loop = sh(exp, "a", "rm a.out; ln -s a.out a.out")
        await exp.start(loop, *(sh(exp, name, f"echo {name}") for name in "bcd"))
        with pytest.raises(FileActionError, match=r"symbolic links: .*/a\.out"):
            await exp.fetch()
        assert [(home / f"bad/{name}.out").read_text() for name in "bcd"] == ["b\n", "c\n", "d\n"]

        async def all_of_them(_: FarHost, paths: Any) -> frozenset[str]:
            await anyio.Path(home / "far/bad/b.out").unlink(missing_ok=True)
            await anyio.Path(home / "far/bad/c.out").write_text("new")
            return frozenset(path for path in paths if not path.endswith("/a.out"))

        monkeypatch.setattr(FarHost, "exist", all_of_them)
        with pytest.raises(FileActionError, match=r"no such file: .*/b\.out"):
            await exp.fetch()
        assert (home / "bad/c.out").read_text() == "new"


async def test_a_directory_that_cannot_be_looked_at(crooked, home):
    """What find(1) could not see is told, after all that it saw was fetched; what is not there, or vanished, is nothing."""
    async with far(crooked, "part", fetch=["*.dat"]) as exp:
        await exp.start(sh(exp, "m", "echo 1 > good.dat"))
        host = exp._launching.far
        assert host is not None
        assert await host.files_below(f"{home}/far/none") == []
        gone = "find: '/x/y': No such file or directory"
        program(crooked, "find", f'/usr/bin/find "$@"; echo "{gone}" >&2; exit 1')
        assert await exp.fetch() == [home / "part/good.dat"]
        (home / "part/good.dat").unlink()
        for words, code in (
            ("find: '/x': Permission denied", 1),
            (f"{gone}\nfind: '/x': Input/output error", 1),
            ("", 2),
        ):
            program(crooked, "find", f'/usr/bin/find "$@"; echo "{words}" >&2; exit {code}')
            with pytest.raises(AgentError, match=words.rpartition(": ")[2] or "ended with code 2"):
                await exp.fetch()
            assert (home / "part/good.dat").read_text() == "1\n"
            (home / "part/good.dat").unlink()
            with pytest.raises(AgentError, match="env ended with code"):
                await exp.history()
        (crooked.place / "bin/find").unlink()
        assert await host.read_from(f"{home}/far/part/good.dat", 0) == b"1\n"
        assert await host.read_from(f"{home}/far/part/none", 0) == b""
        program(crooked, "head", "echo broken >&2; exit 1")
        with pytest.raises(AgentError, match="good.dat cannot be read: .*broken"):
            await host.read_from(f"{home}/far/part/good.dat", 0)


async def test_a_file_that_is_changed_in_place(sshd, home):
    """A digest that is remembered is no longer right when a file was written with its size and its time kept."""
    there, here = home / "far/stale/r.dat", home / "stale/r.dat"
    async with far(sshd, "stale", fetch=["*.dat"]) as exp:
        await exp.start(sh(exp, "m", "echo AAAA > r.dat; touch -d '1 hour ago' r.dat"))
        changed = there.stat().st_ctime
        with anyio.fail_after(20):
            while time.time() < changed + 3.5:  # digests of files that are fresh are not remembered
                await anyio.sleep(0.05)
        await exp.fetch()
        assert here.read_text() == "AAAA\n"
        before = there.stat()
        with there.open("r+") as file:
            file.write("BBBB")
        os.utime(there, ns=(before.st_atime_ns, before.st_mtime_ns))
        await exp.fetch()
        assert here.read_text() == "BBBB\n"


async def test_links_that_are_cut_when_files_are_sent(server: FaultyServer, tmp_path):
    """A server that drops everybody who wants files is not asked many times a second, and not for ever."""
    (tmp_path / "here").write_text("x")
    pair = [(f"{tmp_path}/here", f"{tmp_path}/there")]

    def drop(command: str) -> str:
        if "ASIM-LINK sftp" in command:
            server.cut()
        return command

    async with connected(server.options(), tmp_path) as (agent, *_):
        agent._ssh = replace(agent._ssh, link_patience=2.0)
        server.rewrite, logins, began = drop, server.logins, time.monotonic()
        with anyio.fail_after(20), pytest.raises(AgentError, match="given up: for 2 s every link was cut"):
            await agent.put(pair)
        assert time.monotonic() - began > 1.0
        assert 3 <= server.logins - logins <= 8
        server.rewrite = str
        with anyio.fail_after(20):
            assert await agent.put(pair) == 1


@pytest.fixture
async def proxy(sshd):
    """A link to the server that can be cut."""
    async with Proxy(sshd.port) as proxy:
        sshd.know(proxy.port)
        yield proxy


async def test_links_that_are_cut_when_files_are_looked_at(sshd, proxy, tmp_path):
    """The same of a program that is run there, and never answers because its connection ends."""
    bad, pair = tmp_path / "bad", [(f"{tmp_path}/bad", f"{tmp_path}/there")]
    bad.write_text(
        '#!/bin/sh\ncase " $* " in *" digests "*) kill -9 $(ps -o ppid= -p $PPID);; esac\nexec python3 "$@"\n'
    )
    bad.chmod(0o755)
    async with connected(sshd.options(proxy.port), tmp_path) as (agent, *_):
        far, agent._ssh = agent.far, replace(agent._ssh, link_patience=2.0)
        agent._far, count, began = replace(far, python=str(bad)), proxy.count, time.monotonic()
        with anyio.fail_after(20), pytest.raises(AgentError, match="given up: for 2 s every link was cut"):
            await agent.put(pair)
        assert time.monotonic() - began > 1.0
        assert 3 <= proxy.count - count <= 8
        agent._far = far
        with anyio.fail_after(20):
            assert await agent.put(pair) == 1


@pytest.mark.parametrize("way", ["put", "get"])
async def test_links_that_carry_a_piece_each(sshd, proxy, tmp_path, way):
    """However often the link is cut, as long as each brings something, it goes on."""
    here, there, done = tmp_path / "here", tmp_path / "there", anyio.Event()
    here.write_bytes(os.urandom(60 << 20))

    async def cut() -> None:
        while not done.is_set():
            if proxy.limit is None:
                proxy.limit = proxy.carried + (12 << 20)
            await anyio.sleep(0.005)

    async with connected(sshd.options(proxy.port), tmp_path) as (agent, *_):
        agent._ssh, count, began = replace(agent._ssh, link_patience=0.5), proxy.count, time.monotonic()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(cut)
                assert await (agent.put if way == "put" else agent.get)([(str(here), str(there))]) == 1
                done.set()
        proxy.limit = None
        assert proxy.count - count >= 4 and time.monotonic() - began > 0.6
    assert await anyio.Path(there).read_bytes() == await anyio.Path(here).read_bytes()


async def test_the_end_does_not_wait_for_a_link_that_is_away(sshd, proxy, home, monkeypatch, caplog):
    """Output that cannot be had keeps nobody from leaving for minutes; the log says where it is."""
    monkeypatch.setattr(written, "AWAY", 1.0)
    exp = far(sshd, "away", proxy.port, link_patience=4.0)
    async with exp:
        job = (await exp.start(sh(exp, "m", "echo 1")))[0]
        assert job.status is JobState.COMPLETED
        fetched: list[float] = []
        fetch = written.Written.bring_home

        async def timed(*given: Any) -> None:
            began = time.monotonic()
            await fetch(*given)
            fetched.append(time.monotonic() - began)

        monkeypatch.setattr(written.Written, "bring_home", timed)
        proxy.shut = True
        proxy.cut()
    assert 0.9 < fetched[0] < 3.0
    assert f"there was no link for 1 s. They are in {home}/far/away on 127.0.0.1" in caplog.text
