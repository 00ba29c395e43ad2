"""Keys, prefixes, slots, options."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim import ConfigError
from asim.client.cluster import SlotMap, redirect
from asim.client.keys import Prefixes, dataset_key, dataset_name, shard_key, shard_tag, slot_of
from asim.client.options import Options, from_environ, parse_address
from asim.errors import DatabaseError


@pytest.mark.parametrize(("slot", "tag"), [(0, b"\0\0"), (5461, b"8M"), (10923, b"\xed\xeb")])
def test_tags_of_shards_are_those_of_smartredis(slot: int, tag: bytes) -> None:
    """The tags that SmartRedis was seen to use for an even split in three."""
    assert shard_tag(slot) == tag


def test_every_slot_has_a_tag() -> None:
    """For every slot there is a tag without braces whose keys are in that slot."""
    for slot in range(16384):
        tag = shard_tag(slot)
        assert len(tag) in (2, 3)
        assert slot_of(shard_key(tag, b"model{x}")) == slot


@pytest.mark.parametrize(
    ("key", "slot"),
    [(b"foo", 12182), (b"123456789", 12739), (b"{foo}.bar", 12182), (b"a{foo}b{bar}", 12182), (b"", 0)],
)
def test_slots(key: bytes, slot: int) -> None:
    """Slots as redis computes them."""
    assert slot_of(key) == slot


def test_slots_of_odd_braces() -> None:
    """Braces with nothing between them, or that do not close, are no tag."""
    assert slot_of(b"{}foo") != slot_of(b"foo")
    assert slot_of(b"}{foo}") == slot_of(b"foo")
    assert slot_of(b"{foo") not in (slot_of(b"foo"), 0)


def test_prefixes() -> None:
    """Names are stored with one prefix and looked for with another, where they are wanted at all."""
    prefixes = Prefixes(write="out", sources=("a", "b"))
    assert prefixes.put("x", True) == b"out.x"
    assert prefixes.get("x", True) == b"a.x"
    assert prefixes.put("x", False) == prefixes.get("x", False) == b"x"
    prefixes.read_from("b")
    assert prefixes.get("x", True) == b"b.x"
    with pytest.raises(ConfigError, match="source_id = 'c': must be one of SSKEYIN"):
        prefixes.read_from("c")
    assert Prefixes().put("x", True) == Prefixes().get("x", True) == b"x"


@pytest.mark.parametrize("name", ["", None, 3])
def test_names_must_be_words(name: object) -> None:
    """An empty name, or none, is refused, also behind a prefix."""
    with pytest.raises(ConfigError, match="name = "):
        Prefixes(write="p").put(name, True)


@given(st.text(min_size=1).filter(lambda name: "}" not in name), st.sampled_from(["", "prefix."]))
def test_dataset_keys(name: str, prefix: str) -> None:
    """All of a dataset is in one slot, and its name comes out of its key again."""
    base = dataset_key(prefix.encode() + name.encode(errors="surrogateescape"), name) if name.isprintable() else None
    if base is not None:
        assert base == f"{prefix}{{{name}}}".encode()
        assert dataset_name(base) == name
        assert slot_of(base + b".meta") == slot_of(base + b".t")


@pytest.mark.parametrize(
    ("text", "address"),
    [("h:1", "h:1"), ("tcp://h.x:6379", "h.x:6379"), ("unix:///a/b", "unix:///a/b"), ("[::1]:7", "[::1]:7")],
)
def test_addresses(text: str, address: str) -> None:
    """The forms of an address."""
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:x", "host:0", "host:70000", "unix://"])
def test_wrong_addresses(text: str) -> None:
    """What has no form of an address is an error that names the forms."""
    with pytest.raises(ConfigError, match="address = .*must be host:port, tcp://host:port or unix:///path"):
        parse_address(text)


def test_environment() -> None:
    """SmartRedis' variables; one of several addresses is taken."""
    options, prefixes = from_environ(
        {"SSDB": "a:1,tcp://b:2", "SR_DB_TYPE": "Standalone", "SSKEYIN": "x,y", "SSKEYOUT": "z", "SR_CONN_TIMEOUT": "7",
         "SR_CMD_TIMEOUT": "8", "SR_MODEL_TIMEOUT": "9"}
    )  # fmt: skip
    assert options.address in ("a:1", "b:2")
    assert not options.cluster
    assert (options.connect_timeout, options.timeout, options.model_timeout_ms) == (7, 8, 9)
    assert (prefixes.read, prefixes.sources, prefixes.write) == ("x", ("x", "y"), "z")


def test_environment_of_one_of_several_databases() -> None:
    """A suffix picks a database's own variables; the type is a cluster unless they say otherwise."""
    environ = {
        "SSDB": "no:1",
        "SSDB_two": "yes:2",
        "SSKEYOUT_two": "p",
        "SR_DB_TYPE": "standalone",
        "SR_MODEL_TIMEOUT": "5",
    }
    options, prefixes = from_environ(environ, "two")
    assert (options.address, options.cluster, options.model_timeout_ms, prefixes.write) == ("yes:2", True, 5, "p")


@pytest.mark.parametrize(
    ("environ", "name"),
    [({}, "SSDB"), ({"SSDB": ","}, "SSDB"), ({"SSDB": "a:1", "SR_CMD_TIMEOUT": "-1"}, "SR_CMD_TIMEOUT")],
)
def test_wrong_environment(environ: dict[str, str], name: str) -> None:
    """What is missing or makes no sense is named."""
    with pytest.raises(ConfigError, match=name):
        from_environ(environ)


@pytest.mark.parametrize(
    "options", [{"address": "unix:///x", "cluster": True}, {"timeout": 0}, {"connections": 0}, {"username": "u"}]
)
def test_wrong_options(options: dict[str, object]) -> None:
    """Options that can never work are refused at once."""
    with pytest.raises(ConfigError):
        Options(**{"address": "h:1", **options})


SLOTS = [
    [5461, 16383, [b"", 7001, b"id", [b"hostname", b"x"]], [b"10.0.0.3", 7002, b"replica"]],
    [0, 5460, [b"10.0.0.1", 7000, b"id"]],
]


def test_slot_map() -> None:
    """Slots are found in ranges of any order; a server that does not know its host is where the answer came from."""
    slots = SlotMap(SLOTS, "10.0.0.9:7009")
    assert [shard.first for shard in slots.shards] == [0, 5461]
    assert slots.address(0) == slots.address(5460) == "10.0.0.1:7000"
    assert slots.address(5461) == slots.address(16383) == "10.0.0.9:7001"
    slots.moved(5460, "10.0.0.5:1")
    assert (slots.address(5460), slots.address(5459)) == ("10.0.0.5:1", "10.0.0.1:7000")


@pytest.mark.parametrize("reply", [None, [], [[0, 5]], SLOTS[1:], [[0, 16383, b"x"]]])
def test_slot_maps_that_make_no_sense(reply: object) -> None:
    """A map with holes, or none, is an error."""
    with pytest.raises(DatabaseError, match="CLUSTER SLOTS"):
        SlotMap(reply, "h:1")


def test_redirections() -> None:
    """MOVED and ASK are understood, also without a host; other errors are none."""
    assert redirect("MOVED 3999 127.0.0.1:6381", "h:1") == (3999, "127.0.0.1:6381", False)
    assert redirect("ASK 3999 :6381", "h:1") == (3999, "h:6381", True)
    assert redirect("MOVED 3999 ::1:6381", "h:1") == (3999, "::1:6381", False)
    assert redirect("ERR unknown command", "h:1") is None
