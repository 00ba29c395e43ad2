"""What is decided between operations and servers, with servers that are functions and a clock that is a number."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asim import (
    Client,
    DatabaseConnectionError,
    DatabaseError,
    DatabaseTimeout,
    DataSet,
    KeyNotFoundError,
    SyncClient,
)
from asim.client.codec import command
from asim.client.core import Core
from asim.client.keys import Prefixes, slot_of
from asim.client.operations import admin, datasets, lists, polls, tensors
from asim.client.options import Options
from asim.client.replies import ErrorReply, ReplyReader
from asim.client.steps import Exchange, Lost, Op, Pause
from asim.errors import ConfigTypeError

from .test_replies import read

MAP = [[0, 8191, [b"a", 1, b""]], [8192, 16383, [b"b", 2, b""]]]
CORE = Core(Options(address="a:1"), Prefixes())
Answer = Callable[[str, list[bytes]], Any]


class World:
    """Performs flows: ``answer(address, words)`` gives each reply, or raises :class:`Lost`."""

    def __init__(self, answer: Answer, cluster: bool = False) -> None:
        self.now = 0.0
        self.asked: list[tuple[str, list[bytes]]] = []
        self._answer = answer
        options = Options(address="a:1", cluster=cluster, connect_timeout=10)
        self.core = Core(options, Prefixes(), clock=lambda: self.now)

    def run(self, op: Op[Any]) -> Any:
        """An operation's result."""
        flow = self.core.drive(op)
        outcome: Any = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                return end.value
            if isinstance(step, Pause):
                self.now += step.seconds
                outcome = None
            else:
                outcome = [self._outcome(exchange) for exchange in step]

    def _outcome(self, exchange: Exchange) -> Any:
        try:
            return [self._reply(exchange.address, b"".join(one.parts)) for one in exchange.commands]
        except Lost as lost:
            return lost

    def _reply(self, address: str, data: bytes) -> Any:
        (words,) = read(ReplyReader(), data, [1 << 18])
        self.asked.append((address, words))
        if words == [b"CLUSTER", b"SLOTS"]:
            return MAP
        return self._answer(address, words)

    def verbs(self) -> list[bytes]:
        """The first words of all that was asked."""
        return [words[0] for _, words in self.asked]


def script(*answers: Any) -> Answer:
    """Answers in order; exceptions are raised."""
    left = list(answers)

    def answer(address: str, words: list[bytes]) -> Any:
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    return answer


def test_errors_carry_text_and_command() -> None:
    """An error reply is an exception with the command and the server's own words; missing keys are KeyErrors."""
    world = World(script(ErrorReply("ERR tensor key is empty or in a different shard")))
    with pytest.raises(KeyNotFoundError) as caught:
        world.run(tensors.get_tensor(world.core, "x"))
    assert (caught.value.command, caught.value.reply) == (
        "AI.TENSORGET x",
        "ERR tensor key is empty or in a different shard",
    )
    assert str(caught.value) == "AI.TENSORGET x: ERR tensor key is empty or in a different shard"
    world = World(script(ErrorReply("WRONGTYPE no")))
    with pytest.raises(DatabaseError, match="AI.TENSORGET x: WRONGTYPE no"):
        world.run(tensors.get_tensor(world.core, "x"))


def test_lost_commands_are_sent_again() -> None:
    """A command that may be done twice is sent again until the server is back."""
    world = World(script(Lost("gone", sent=True), Lost("refused", sent=False), Lost("refused", sent=False), 1))
    assert world.run(tensors.tensor_exists(world.core, "x")) is True
    assert world.verbs() == [b"EXISTS"] * 4
    assert 0 < world.now < 0.1


@pytest.mark.parametrize(
    "op",
    [
        lambda core: lists.append_to_list(core, "l", DataSet("d")),
        lambda core: tensors.rename_tensor(core, "a", "b"),
        lambda core: admin.execute(core, "INCR", "x"),
    ],
)
def test_unsafe_commands_are_not_sent_again(op: Callable[[Core], Op[Any]]) -> None:
    """One that must not be done twice is sent again only if it cannot have been seen; else the error says so."""
    world = World(script(Lost("refused", sent=False), Lost("gone", sent=True), 1))
    with pytest.raises(DatabaseConnectionError, match="a:1: gone; it may or may not have been done"):
        world.run(op(world.core))
    assert len(world.asked) == 2


def test_giving_up() -> None:
    """After the deadline for connecting the error says what was wrong and how long it was tried."""

    def refuse(address: str, words: list[bytes]) -> Any:
        raise Lost("refused", sent=False)

    for cluster in (False, True):
        world = World(refuse, cluster)
        world._reply = lambda address, data: refuse(address, [])  # type: ignore[method-assign]
        with pytest.raises(DatabaseConnectionError, match="refused"):
            world.run(tensors.tensor_exists(world.core, "x"))
        assert 10 <= world.now < 11


def test_refused_for_good() -> None:
    """A server that does not want this client is not asked again."""
    world = World(script(Lost("the server refused: WRONGPASS", sent=False, final=True)))
    with pytest.raises(DatabaseConnectionError, match="WRONGPASS"):
        world.run(tensors.tensor_exists(world.core, "x"))
    assert world.now == 0


def test_late_replies_are_timeouts() -> None:
    """A reply that did not come in time is a timeout, and the command is not sent again."""
    world = World(script(Lost("no reply in time", sent=True, late=True)))
    with pytest.raises(DatabaseTimeout, match="EXISTS x: a:1: no reply in time"):
        world.run(tensors.tensor_exists(world.core, "x"))


@pytest.mark.parametrize("text", ["LOADING Redis is loading", "TRYAGAIN later", "CLUSTERDOWN the cluster is down"])
def test_busy_servers_are_asked_again(text: str) -> None:
    """Errors that mean "soon" are waited for, up to the deadline."""
    world = World(script(ErrorReply(text), ErrorReply(text), 1))
    assert world.run(tensors.tensor_exists(world.core, "x"))
    world = World(lambda address, words: ErrorReply(text))
    with pytest.raises(DatabaseError, match=text):
        world.run(tensors.tensor_exists(world.core, "x"))
    assert 10 <= world.now < 11


# -- clusters


def name_in(half: int, salt: str = "") -> str:
    """A name whose slot is in the lower or the upper half."""
    return next(f"{salt}{i}" for i in range(100) if slot_of(f"{salt}{i}".encode()) // 8192 == half)


def test_commands_go_to_the_owner() -> None:
    """Each key's command goes to the server of its slot; the map is asked for once."""
    world = World(lambda address, words: 1, cluster=True)
    for half in (0, 1, 0):
        world.run(tensors.tensor_exists(world.core, name_in(half)))
    assert [address for address, _ in world.asked] == ["a:1", "a:1", "b:2", "a:1"]


def test_moved_is_followed_and_remembered() -> None:
    """After MOVED the slot's commands go straight to its new server."""

    def answer(address: str, words: list[bytes]) -> Any:
        return ErrorReply(f"MOVED {slot_of(words[1])} c:3") if address != "c:3" else 1

    world = World(answer, cluster=True)
    for _ in range(2):
        assert world.run(tensors.tensor_exists(world.core, name_in(0)))
    assert [address for address, _ in world.asked] == ["a:1", "a:1", "c:3", "c:3"]


def test_ask_is_followed_once() -> None:
    """After ASK the command goes to the other server behind ASKING, and the next one to the owner again."""

    def answer(address: str, words: list[bytes]) -> Any:
        return ErrorReply(f"ASK {slot_of(words[1])} b:2") if address == "a:1" else 1

    world = World(answer, cluster=True)
    for _ in range(2):
        assert world.run(tensors.tensor_exists(world.core, name_in(0)))
    once = [b"EXISTS", b"ASKING", b"EXISTS"]
    assert world.verbs()[1:] == once + once


def test_pipelines_keep_their_order() -> None:
    """Replies of several servers, some after redirections, come back in the order of the commands."""
    names = [name_in(i % 2, f"n{i}_") for i in range(6)]
    moved = names[2].encode()

    def answer(address: str, words: list[bytes]) -> Any:
        if words[1] == moved and address != "c:3":
            return ErrorReply(f"MOVED {slot_of(moved)} c:3")
        return names.index(words[1].decode())

    world = World(answer, cluster=True)

    def several() -> Op[Any]:
        return (yield [tensors.command("EXISTS", name.encode()) for name in names])

    assert world.run(several()) == list(range(6))


def test_servers_that_send_each_others_way() -> None:
    """An endless redirection is an error."""
    other = {"a:1": "b:2", "b:2": "a:1"}
    world = World(lambda address, words: ErrorReply(f"MOVED {slot_of(words[1])} {other[address]}"), cluster=True)
    with pytest.raises(DatabaseError, match="redirected more than"):
        world.run(tensors.tensor_exists(world.core, "x"))


def test_map_is_asked_for_again_after_a_loss() -> None:
    """When a server is lost, who owns what is asked again, of any that is known."""
    world = World(script(1, Lost("gone", sent=True), 1), cluster=True)
    for _ in range(2):
        world.run(tensors.tensor_exists(world.core, name_in(1)))
    assert world.verbs() == [b"CLUSTER", b"EXISTS", b"EXISTS", b"CLUSTER", b"EXISTS"]


# -- operations


def test_datasets_are_marked_last() -> None:
    """A dataset is stored in one round trip; what marks it as complete goes first and comes last."""
    dataset = DataSet("d")
    dataset.add_tensor("t", np.zeros(2, "i1"))
    dataset.add_meta_string("s", "x")
    world = World(lambda address, words: b"OK")
    world.run(datasets.put_dataset(world.core, dataset))
    assert world.verbs() == [b"DEL", b"HMSET", b"AI.TENSORSET", b"HSET"]
    assert world.asked[2][1] == [b"AI.TENSORSET", b"{d}.t", b"INT8", b"2", b"BLOB", b"\0\0"]
    assert world.asked[3][1] == [b"HSET", b"{d}.meta", b".COMPLETE", b"1"]


def test_polls_do_not_sleep_after_the_last_look() -> None:
    """Three looks have two pauses between them; a hit ends them."""
    world = World(lambda address, words: 0)
    assert world.run(polls.poll_tensor(world.core, "x", 250, 3)) is False
    assert (len(world.asked), world.now) == (3, 0.5)
    world = World(script(0, 1))
    assert world.run(polls.poll_tensor(world.core, "x", 250, 3)) is True
    assert world.run(polls.poll_tensor(world.core, "x", 250, 0)) is False


@pytest.mark.parametrize("face", [Client, SyncClient])
def test_methods_look_like_methods(face: type) -> None:
    """help() and notebooks show ``self`` and what is returned, not the generator that an operation is."""
    signature = inspect.signature(face.get_tensor)  # type: ignore[attr-defined]
    assert str(signature) == "(self, name: 'str') -> 'Array'"
    assert face.get_tensor.__annotations__ == {"name": "str", "return": "Array"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("word", [None, True, [1], {}, object()])
def test_words_of_other_types_are_refused(word: object) -> None:
    """What Redis has no text for is refused with its value, before anything is sent."""
    with pytest.raises(ConfigTypeError, match="words = .*: must be str, bytes, int or float"):
        next(admin.execute(CORE, "SET", "k", word))  # type: ignore[arg-type]


def test_errors_name_the_subcommand() -> None:
    """An error of CONFIG GET says so, and odd bytes of keys are shown as escapes."""
    assert next(admin.execute(CORE, "CONFIG", "GET", "x")).text == "CONFIG GET"
    assert next(admin.execute(CORE, "SET", "x", 0.5, key="x")).text == "SET x"
    assert command("AI.INFO", b"{\0\0}.x").text == "AI.INFO {\\x00\\x00}.x"
