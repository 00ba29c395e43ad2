"""What every launcher and every host must do. Derive a test class, give it the fixtures, and run it with pytest.

class TestMine(LauncherContract):
    @pytest.fixture
    def launcher(self): return MyLauncher(...)

    @pytest.fixture
    def spec(self, tmp_path): ...   # (name, kind) -> JobSpec; kinds: "true", "fail" (exit code 3), "long"
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from ..agent.protocol import ProcessSpec
from ..errors import AsimError, FileActionError
from ..launchers.base import JobKey, JobStatus, Launcher
from ..plan import JobSpec
from ..status import JobState
from ..transport.connection import Host

Spec = Callable[[str, str], JobSpec]


class Evidence:
    """A sink that can be waited on."""

    def __init__(self, deadline: float = 10.0) -> None:
        self._deadline = deadline
        self.of: dict[JobKey, list[JobStatus]] = {}
        self.lost: list[AsimError] = []
        self._news = anyio.Event()

    def __call__(self, news: Any) -> None:
        for key, status in news:
            self.of.setdefault(key, []).append(status)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the evidence is such."""
        with anyio.fail_after(self._deadline):
            while not condition():
                self._news = anyio.Event()
                await self._news.wait()

    def states(self, key: JobKey) -> list[JobState]:
        """The states of one job from its start on, in order, each once."""
        found = [status.state for status in self.of.get(key, []) if status.state is not JobState.PENDING]
        return [state for state, before in zip(found, [None, *found], strict=False) if state is not before]

    def ended(self, *keys: JobKey) -> bool:
        """Whether all these have a terminal state."""
        return all(self.states(key) and self.states(key)[-1].terminal for key in keys)


@pytest.mark.anyio
class LauncherContract:
    """Fixtures to give: ``launcher`` and ``spec`` (see the module)."""

    DEADLINE = 10.0
    """Seconds that anything may take."""

    @pytest.fixture
    async def evidence(self, launcher: Launcher) -> Any:
        """An opened launcher's evidence; closed afterwards."""
        evidence = Evidence(self.DEADLINE)
        await launcher.open(evidence, evidence.lost.append)
        async with anyio.create_task_group() as group:
            group.start_soon(launcher.serve)
            yield evidence
            await launcher.close([])
            group.cancel_scope.cancel()
        assert evidence.lost == []

    async def test_each_job_runs_and_ends_once(self, launcher: Launcher, evidence: Evidence, spec: Spec) -> None:
        """RUNNING, then exactly one terminal state with the exit code, for every key; times do not go back."""
        keys = [JobKey(number) for number in range(1, 21)]
        await launcher.submit([(key, spec(f"j{key}", "true" if key % 2 else "fail")) for key in keys])
        await evidence.until(lambda: evidence.ended(*keys))
        for key in keys:
            end = JobState.COMPLETED if key % 2 else JobState.FAILED
            assert evidence.states(key) == [JobState.RUNNING, end]
            assert evidence.of[key][-1].code == (0 if key % 2 else 3)
            first = next(status for status in evidence.of[key] if status.state is JobState.RUNNING)
            assert first.time <= evidence.of[key][-1].time

    async def test_cancel_ends_running_jobs(self, launcher: Launcher, evidence: Evidence, spec: Spec) -> None:
        """A cancelled job is CANCELLED; the others go on."""
        one, two = JobKey(1), JobKey(2)
        await launcher.submit([(one, spec("one", "long")), (two, spec("two", "long"))])
        await evidence.until(lambda: all(evidence.states(key) == [JobState.RUNNING] for key in (one, two)))
        await launcher.cancel([one], 1.0)
        await evidence.until(lambda: evidence.ended(one))
        assert evidence.states(one)[-1] is JobState.CANCELLED and not evidence.ended(two)

    async def test_cancel_right_after_submit(self, launcher: Launcher, evidence: Evidence, spec: Spec) -> None:
        """A job that was cancelled before it could start still ends, once."""
        await launcher.submit([(JobKey(1), spec("one", "long"))])
        await launcher.cancel([JobKey(1)], 1.0)
        await evidence.until(lambda: evidence.ended(JobKey(1)))
        assert evidence.states(JobKey(1)).count(JobState.CANCELLED) == 1

    async def test_cancel_of_the_unknown_and_the_ended_is_harmless(
        self, launcher: Launcher, evidence: Evidence, spec: Spec
    ) -> None:
        """Cancelling what is not there, or no more, changes nothing."""
        await launcher.submit([(JobKey(1), spec("one", "true"))])
        await evidence.until(lambda: evidence.ended(JobKey(1)))
        await launcher.cancel([JobKey(1), JobKey(99)], 1.0)
        await launcher.submit([(JobKey(2), spec("two", "true"))])
        await evidence.until(lambda: evidence.ended(JobKey(2)))
        assert evidence.states(JobKey(1)) == [JobState.RUNNING, JobState.COMPLETED] and JobKey(99) not in evidence.of

    async def test_close_stops_what_runs(self, launcher: Launcher, evidence: Evidence, spec: Spec) -> None:
        """When close returns, every job has ended and was reported."""
        await launcher.submit([(JobKey(1), spec("one", "long")), (JobKey(2), spec("two", "long"))])
        await evidence.until(lambda: evidence.states(JobKey(2)) == [JobState.RUNNING])
        await launcher.close([])
        await evidence.until(lambda: evidence.ended(JobKey(1), JobKey(2)))

    async def test_nothing_to_do_is_fine(self, launcher: Launcher, evidence: Evidence) -> None:
        """Empty lists are allowed everywhere."""
        await launcher.submit([])
        await launcher.cancel([], 1.0)
        await launcher.poll([])
        await launcher.files([])
        assert evidence.of == {}


@pytest.mark.anyio
class HostContract:
    """Fixtures to give: ``host`` (a :class:`~asim.transport.connection.Host`) and ``news``, the list of its rows."""

    async def test_files_are_done_in_order_when_files_returns(self, host: Host, tmp_path: Path) -> None:
        """Every verb does what its name says."""
        (tmp_path / "source").write_bytes(b"\x00\xff")
        await host.files(
            [
                ("mkdirs", f"{tmp_path}/a/b"),
                ("mkdir", f"{tmp_path}/a/c"),
                ("write", f"{tmp_path}/a/w", "t\udcffxt"),
                ("append", f"{tmp_path}/a/w", "!"),
                ("template", "origin", 0, ["x=", "T", ";"]),
                ("render", f"{tmp_path}/a/r", 0, ["5"], 0o640),
                ("copy", f"{tmp_path}/a/copy", f"{tmp_path}/source"),
                ("symlink", f"{tmp_path}/a/link", "w"),
                ("rename", f"{tmp_path}/z", f"{tmp_path}/a"),
                ("rename", f"{tmp_path}/z/.b.asim-old", f"{tmp_path}/z/b"),
                ("remove", f"{tmp_path}/z/.b.asim-old"),
                ("remove", f"{tmp_path}/.asim-never-there"),
            ]
        )
        assert (tmp_path / "z/w").read_bytes() == b"t\xffxt!" and (tmp_path / "z/r").read_text() == "x=5;"
        assert (tmp_path / "z/copy").read_bytes() == b"\x00\xff" and (tmp_path / "z/link").is_symlink()
        assert sorted(entry.name for entry in (tmp_path / "z").iterdir()) == ["c", "copy", "link", "r", "w"]

    async def test_the_first_error_ends_a_batch(self, host: Host, tmp_path: Path) -> None:
        """The error names the path; nothing after it is done, also when the batch is long; the next batch works."""
        many = [("mkdir", f"{tmp_path}/later{number}") for number in range(1000)]
        with pytest.raises(FileActionError, match=f"{tmp_path}/no/x") as caught:
            await host.files([("mkdir", f"{tmp_path}/first"), ("mkdir", f"{tmp_path}/no/x"), *many])
        assert caught.value.errno == 2
        await host.files([("mkdir", f"{tmp_path}/next")])
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["first", "next"]

    async def test_only_its_own_temporaries_are_removed(self, host: Host, tmp_path: Path) -> None:
        """Removing anything that asim did not name itself is refused, and so is any relative path."""
        (tmp_path / "precious").mkdir()
        for path in (f"{tmp_path}/precious", "/", "", "..", "relative/.asim-x"):
            with pytest.raises(FileActionError, match=r"only temporary|not an absolute path"):
                await host.files([("remove", path)])
        assert (tmp_path / "precious").is_dir()

    async def test_processes_start_and_their_ends_come_back(self, host: Host, news: list[Any], tmp_path: Path) -> None:
        """Two hundred processes: one start and one end each."""
        with anyio.fail_after(20):
            await host.spawn(
                ProcessSpec(
                    key=key,
                    argv=("/bin/true",),
                    cwd=str(tmp_path),
                    stdout=f"{tmp_path}/{key}o",
                    stderr=f"{tmp_path}/{key}e",
                )
                for key in range(1, 201)
            )
            while sum(row[1] == "end" for row in news) < 200:
                await anyio.sleep(0.005)
        assert sorted(row[0] for row in news if row[1] == "end" and row[3] == 0) == list(range(1, 201))

    async def test_commands_run_and_give_all_they_write(self, host: Host, tmp_path: Path) -> None:
        """Any bytes go in and come out; exit codes, signals, directory and environment are those asked for."""
        odd = "t\udcff\u00e9\n" * 50_000
        done = await host.run(["cat"], stdin=odd)
        assert (done.argv, done.code, done.stdout, done.stderr) == (("cat",), 0, odd, "")
        script = 'pwd; echo "$A-$HOME" >&2; exit 3'
        done = await host.run(["sh", "-c", script], cwd=str(tmp_path), env=(("A", "b c"), ("HOME", None)))
        assert (done.code, done.stdout, done.stderr) == (3, f"{tmp_path}\n", "b c-\n")
        assert (await host.run(["sh", "-c", "kill -9 $$"])).code == -9

    async def test_a_command_is_looked_up_in_its_own_path(self, host: Host, tmp_path: Path) -> None:
        """PATH is that of the command, and what cannot be started says why."""
        (tmp_path / "mine").write_text("#!/bin/sh\necho found\n")
        (tmp_path / "mine").chmod(0o755)
        assert (await host.run(["mine"], env=(("PATH", str(tmp_path)),))).stdout == "found\n"
        assert (await host.run(["./mine"], cwd=str(tmp_path))).stdout == "found\n"
        done = await host.run(["mine"])
        assert done.code is None and "no such executable: mine" in done.stderr
        done = await host.run(["true"], cwd=f"{tmp_path}/no")
        assert done.code is None and "cannot enter its directory" in done.stderr
        assert (await host.run(["\ud800"])).code is None

    async def test_a_command_ends_after_its_time_and_its_output(self, host: Host, tmp_path: Path) -> None:
        """What takes too long or writes too much is stopped, with the reason; what it wrote before is there."""
        done = await host.run(["sh", "-c", "echo x; trap '' TERM; while :; do sleep 0.1; done"], timeout=0.2)
        assert done.code is None and done.stdout == "x\n" and "stopped after its time" in done.stderr
        done = await host.run(["yes"], limit=100_000)
        assert done.code is None and len(done.stdout) == 100_000 and "100000 bytes" in done.stderr
        done = await host.run(["sh", "-c", "echo y; sleep 60 & exit 5"])  # something holds its output
        assert (done.code, done.stdout) == (5, "y\n")

    async def test_cancelling_stops_the_command(self, host: Host, tmp_path: Path) -> None:
        """The process is gone soon after; many at once all get their turn."""
        with anyio.move_on_after(20) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(
                    host.run, ["sh", "-c", f"echo $$ > {tmp_path}/.p; mv {tmp_path}/.p {tmp_path}/p; sleep 60"]
                )
                while not (tmp_path / "p").exists():
                    await anyio.sleep(0.005)
                group.cancel_scope.cancel()
            pid = (tmp_path / "p").read_text().strip()
            while Path(f"/proc/{pid}").exists():
                await anyio.sleep(0.005)
        assert not scope.cancelled_caught
        codes = []

        async def one(number: int) -> None:
            codes.append((await host.run(["sh", "-c", f"exit {number}"])).code)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for number in range(60):
                    group.start_soon(one, number)
        assert sorted(code for code in codes if code is not None) == list(range(60))

    async def test_new_files_are_seen_once(self, host: Host, tmp_path: Path) -> None:
        """Files that appear in a watched directory, even one that is made later, are reported once, with their content."""
        place, seen = tmp_path / "exits", dict[str, list[str]]()

        def on_seen(rows: Any) -> None:
            for name, text in rows:
                seen.setdefault(name, []).append(text)

        async def until(count: int) -> None:
            with anyio.fail_after(10):
                while len(seen) < count:
                    await anyio.sleep(0.005)

        host.watch(str(place), 0.02, on_seen)
        await host.files([("mkdir", str(place)), ("write", f"{place}/.hidden", "h"), ("mkdir", f"{place}/folder")])
        await host.files([("write", f"{place}/.w{n}", f"{n}\udcff") for n in range(300)])
        await host.files([("rename", f"{place}/{n}", f"{place}/.w{n}") for n in range(300)])
        await until(300)
        await host.files([("write", f"{place}/.big", "x" * 9000), ("rename", f"{place}/big", f"{place}/.big")])
        await until(301)
        assert seen == {**{str(n): [f"{n}\udcff"] for n in range(300)}, "big": ["x" * 4096]}
        host.watch(str(place), 0, on_seen)
        await host.files([("write", f"{place}/late", "")])
        await host.run(["sleep", "0.1"])
        assert "late" not in seen

    async def test_new_files_are_told_in_order(self, host: Host, tmp_path: Path) -> None:
        """Nobody hears of a file before one that was there earlier, however many appear at once."""
        early: list[str] = []
        known: set[str] = set()

        def on_seen(rows: Any) -> None:
            known.update(name for name, _ in rows)
            early.extend(name for name, _ in rows if f"{name[:-1]}a" not in known)

        def appear() -> None:
            for number in range(500):
                for kind in "ab":
                    (tmp_path / f".{number}{kind}").touch()
                    (tmp_path / f".{number}{kind}").rename(tmp_path / f"{number}{kind}")

        host.watch(str(tmp_path), 0.001, on_seen)
        await to_thread.run_sync(appear)
        with anyio.fail_after(10):
            while len(known) < 1000:
                await anyio.sleep(0.01)
        assert early == []
