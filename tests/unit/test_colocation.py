"""A database beside a model: what is recorded, what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asim.entities.colocation import ColocatedDB, Colocation
from asim.errors import ConfigError, ConfigTypeError, UnsupportedError


class Host(Colocation):
    """As small as a host can be."""

    __slots__ = ("_colocated", "name", "run_settings")

    def __init__(self, mpmd: list[object] | None = None) -> None:
        self.name = "m"
        self.run_settings = SimpleNamespace(mpmd=mpmd or [])
        self._colocated = None


class Bare(Colocation):
    """A host without run settings."""

    __slots__ = ("_colocated", "name")

    def __init__(self) -> None:
        self.name = "m"
        self._colocated = None


def tcp(*args: Any, **kwargs: Any) -> ColocatedDB:
    """What colocate_db_tcp records."""
    host = Host()
    host.colocate_db_tcp(*args, **kwargs)
    assert host.colocated_db is not None
    return host.colocated_db


def uds(*args: Any, **kwargs: Any) -> ColocatedDB:
    """What colocate_db_uds records."""
    host = Host()
    host.colocate_db_uds(*args, **kwargs)
    assert host.colocated_db is not None
    return host.colocated_db


def test_defaults() -> None:
    """Without arguments there is what SmartSim has: port 6379 on lo, or /tmp/redis.socket with 755, on cpu 0."""
    assert tcp() == ColocatedDB(kind="tcp", port=6379, interfaces=("lo",), pinning=(0,), any_cpus=True)
    assert uds() == ColocatedDB(
        kind="uds", unix_socket="/tmp/redis.socket", socket_permissions=755, pinning=(0,), any_cpus=True
    )
    assert uds().port == 0


def test_all_arguments_arrive() -> None:
    """Every argument, by position in SmartSim's order, ends in its field."""
    common: dict[str, Any] = {"db_cpus": 2, "pinning": (3,), "debug": True, "db_identifier": "colo"}
    made = tcp(7000, ["ib0", "lo"], 2, [3], True, "colo", loglevel="debug", threads_per_queue=4)
    assert (made.port, made.interfaces) == (7000, ("ib0", "lo"))
    assert (dict(made.options), dict(made.engine)) == ({"loglevel": "debug"}, {"threads_per_queue": 4})
    assert replace(made, options={}, engine={}) == ColocatedDB(
        kind="tcp", port=7000, interfaces=("ib0", "lo"), **common
    )
    local = ColocatedDB(kind="uds", unix_socket="/tmp/x.sock", socket_permissions=700, **common)
    assert uds("/tmp/x.sock", 700, 2, [3], True, "colo") == local


def test_state_before_and_after() -> None:
    """A host knows whether it has a database; the old name is the TCP one."""
    host = Host()
    assert (host.colocated, host.colocated_db) == (False, None)
    host.colocate_db(port=6780)
    assert host.colocated
    assert host.colocated_db == tcp(6780)


@pytest.mark.parametrize("again", [Host.colocate_db, Host.colocate_db_tcp, Host.colocate_db_uds])
def test_twice_is_refused(again: Callable[[Host], None]) -> None:
    """There is one database beside a model, and the first one stays."""
    host = Host()
    host.colocate_db_tcp(6780)
    with pytest.raises(ConfigError, match=r"m: colocated database = .* already, by tcp"):
        again(host)
    assert host.colocated_db == tcp(6780)


@pytest.mark.parametrize("colocate", [Host.colocate_db_tcp, Host.colocate_db_uds])
def test_mpmd_is_unsupported(colocate: Callable[[Host], None]) -> None:
    """MPMD run settings cannot have a database beside them."""
    host = Host(mpmd=["part"])
    with pytest.raises(UnsupportedError, match=r"m: run_settings\.mpmd = \['part'\]"):
        colocate(host)
    assert not host.colocated


def test_host_without_run_settings() -> None:
    """A host that has no run settings has no MPMD parts."""
    host = Bare()
    host.colocate_db_uds()
    assert host.colocated


# --- pinning


@pytest.mark.parametrize(
    ("custom", "cpus", "pinning"),
    [
        (None, 1, (0,)),
        (None, 3, (0, 1, 2)),
        ([], 2, None),
        ((), 1, None),
        (range(0), 1, None),
        ([[], ()], 1, None),
        ([10, 9, 2], 1, (2, 9, 10)),
        ([1, 1, range(1, 3)], 1, (1, 2)),
        ([range(4, 6), 0, [12, 11]], 2, (0, 4, 5, 11, 12)),
        ({5, 3}, 1, (3, 5)),
        (range(2), 1, (0, 1)),
        ((cpu for cpu in (2, 1)), 1, (1, 2)),
        ((iter([1]), iter([0])), 1, (0, 1)),
        (np.array([3, 1]), 1, (1, 3)),
        ([np.int64(7)], 1, (7,)),
    ],
)
def test_pinning(custom: Any, cpus: int, pinning: tuple[int, ...] | None) -> None:
    """None is the first cpus, nothing is no pinning, all else is flattened, each once, in the order of numbers."""
    assert tcp(db_cpus=cpus, custom_pinning=custom).pinning == pinning


@pytest.mark.parametrize("custom", [[-1], [0, [-2]], [range(-1, 1)]])
def test_negative_cpu(custom: Any) -> None:
    """There is no cpu below 0."""
    with pytest.raises(ConfigError, match=r"m: custom_pinning: cpu = -\d: must be 0 or more") as caught:
        tcp(custom_pinning=custom)
    assert not isinstance(caught.value, ConfigTypeError)


@pytest.mark.parametrize(
    "custom",
    [5, True, "0,1", "", b"\0\1", ["0"], [b"\0"], [1.0], [True], [None], [[[1]]], {0: 1}, [{0: 1}], [[1, "2"]]],
)
def test_cpus_of_a_wrong_type(custom: Any) -> None:
    """Only ints, and iterables of ints, number cpus; text and bytes do not."""
    with pytest.raises(ConfigTypeError, match=r"m: custom_pinning.* = .*: must be an "):
        uds(custom_pinning=custom)


# --- the other arguments


@pytest.mark.parametrize(
    ("given", "names"),
    [("lo", ("lo",)), ("ib0, lo", ("ib0", "lo")), (["lo", "lo", "ib0"], ("lo", "ib0")), (("eth0",), ("eth0",))],
)
def test_interfaces(given: Any, names: tuple[str, ...]) -> None:
    """One name, several in a list, or several in one text; each once."""
    assert tcp(ifname=given).interfaces == names


@pytest.mark.parametrize(
    ("make", "fields", "text"),
    [
        (tcp, {"port": -1}, "m: port = -1"),
        (tcp, {"port": 65536}, r"m: port = 65536: must be 0 \(any free one\) to 65535"),
        (tcp, {"ifname": ""}, "m: ifname = ''"),
        (tcp, {"ifname": []}, r"m: ifname = \[\]"),
        (tcp, {"ifname": ["lo", " "]}, "m: ifname = "),
        (tcp, {"ifname": ["a b"]}, "m: ifname = "),
        (tcp, {"db_cpus": 0}, "m: db_cpus = 0"),
        (tcp, {"db_identifier": "a b"}, "m: db_identifier = 'a b'"),
        (tcp, {"db_identifier": "a=b"}, "m: db_identifier = 'a=b'"),
        (tcp, {"db_identifier": "a\0"}, "m: db_identifier = "),
        (tcp, {"unix_socket": "/x"}, "m: unix_socket = '/x': is an argument for the other kind"),
        (tcp, {"socket_permissions": 700}, "m: socket_permissions = 700: is an argument for the other kind"),
        (uds, {"port": 1}, "m: port = 1: is an argument for the other kind"),
        (uds, {"ifname": "lo"}, "m: ifname = 'lo': is an argument for the other kind"),
        (uds, {"unix_socket": ""}, "m: unix_socket = ''"),
        (uds, {"unix_socket": "/a b"}, "m: unix_socket = '/a b'"),
        (uds, {"unix_socket": "/a\n"}, "m: unix_socket = "),
        (uds, {"unix_socket": "/" * 108}, "must be 1 to 107"),
        (uds, {"socket_permissions": -1}, "m: socket_permissions = -1"),
        (uds, {"socket_permissions": 778}, "m: socket_permissions = 778"),
        (uds, {"socket_permissions": 0o755}, "m: socket_permissions = 493: must be octal digits"),
        (uds, {"socket_permissions": 1000}, "m: socket_permissions = 1000"),
        (tcp, {"threads_per_queue": 0}, "m: threads_per_queue = 0: must be 1 or more"),
        (tcp, {"inter_op_threads": -1}, "m: inter_op_threads = -1"),
        (tcp, {"inter_op_threads": 1, "inter_op_parallelism": 2}, "inter_op_threads is given already, as 1"),
        (tcp, {"max_clients": 1, "max-clients": 2}, "m: max-clients = '2': max-clients is given already, as '1'"),
        (tcp, {"--save": "1"}, "m: name of a Redis option = '--save'"),
        (tcp, {"": "1"}, "m: name of a Redis option = ''"),
        (tcp, {"save": "a\nport 1"}, "m: save = .* line break"),
        (tcp, {"save": "a\r"}, "m: save = .* line break"),
        (tcp, {"save": "\0"}, "m: save = .* NUL"),
    ],
)
def test_bad_values_are_refused(make: Callable[..., Any], fields: dict[str, Any], text: str) -> None:
    """A value that can never work is refused at once, with its field and its value."""
    with pytest.raises(ConfigError, match=text) as caught:
        make(**fields)
    assert not isinstance(caught.value, ConfigTypeError)


@pytest.mark.parametrize(
    ("make", "fields", "text"),
    [
        (tcp, {"port": "6379"}, "m: port = '6379'"),
        (tcp, {"port": None}, "m: port = None"),
        (tcp, {"ifname": None}, "m: ifname = None"),
        (tcp, {"ifname": [1]}, "m: ifname = 1"),
        (tcp, {"db_cpus": 1.0}, "m: db_cpus = 1.0"),
        (tcp, {"debug": 1}, "m: debug = 1"),
        (tcp, {"db_identifier": None}, "m: db_identifier = None"),
        (uds, {"unix_socket": None}, "m: unix_socket = None"),
        (uds, {"socket_permissions": "755"}, "m: socket_permissions = '755'"),
        (tcp, {"intra_op_threads": "2"}, "m: intra_op_threads = '2'"),
        (tcp, {"save": ["900", "1"]}, "m: save = "),
        (tcp, {"save": b"1"}, "m: save = b'1'"),
    ],
)
def test_wrong_types_are_refused(make: Callable[..., Any], fields: dict[str, Any], text: str) -> None:
    """A wrong type is a ConfigTypeError that says which, and what would be right."""
    with pytest.raises(ConfigTypeError, match=f"{text}.*: must be "):
        make(**fields)


@pytest.mark.parametrize("make", [tcp, uds])
@pytest.mark.parametrize("value", [True, False, None])
def test_limit_app_cpus_is_unsupported(make: Callable[..., Any], value: object) -> None:
    """SmartSim's old argument is refused, whatever its value."""
    with pytest.raises(UnsupportedError, match="m: limit_app_cpus = "):
        make(limit_app_cpus=value)


# --- engine and Redis


@pytest.mark.parametrize("way", ["threads", "parallelism"])
def test_engine_settings(way: str) -> None:
    """Both spellings end under one name, None is not given, and the engine's settings do not reach Redis."""
    made = tcp(**{f"inter_op_{way}": 2, f"intra_op_{way}": 0, "threads_per_queue": None})
    assert dict(made.engine) == {"inter_op_threads": 2, "intra_op_threads": 0}
    assert dict(made.options) == {}


def test_both_spellings_may_agree() -> None:
    """The same setting twice is no contradiction when the values are the same."""
    assert dict(uds(intra_op_threads=3, intra_op_parallelism=3).engine) == {"intra_op_threads": 3}


def test_redis_options() -> None:
    """Names have dashes, values are text as Redis reads it, None is not given."""
    given = {"maxmemory_policy": "allkeys-lru", "io_threads": 4, "save": "", "hash_max": 0.5}
    made = tcp(**given, appendonly=True, lazyfree=False, logfile=None)
    assert dict(made.options) == {
        "maxmemory-policy": "allkeys-lru",
        "io-threads": "4",
        "save": "",
        "hash-max": "0.5",
        "appendonly": "yes",
        "lazyfree": "no",
    }
    assert dict(made.engine) == {}


# --- the record


def test_the_record_is_a_value() -> None:
    """Frozen with its mappings, equal and hashed by value, and it can be copied and sent elsewhere."""
    made = tcp(save="", threads_per_queue=1)
    assert copy.copy(made) == copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
    assert hash(replace(made)) == hash(made)
    assert not hasattr(made, "__dict__")
    assert made != tcp()
    with pytest.raises(FrozenInstanceError):
        made.port = 1  # type: ignore[misc]
    for mapping in (made.options, made.engine):
        with pytest.raises(TypeError):
            mapping["x"] = 1  # type: ignore[index]


def test_the_record_keeps_its_own_mappings() -> None:
    """What the maker's dict becomes later is not the record's affair."""
    options = {"save": ""}
    made = ColocatedDB(kind="tcp", options=options)
    options["save"] = "900 1"
    assert dict(made.options) == {"save": ""}
