"""What applications may do. SmartRedis knows no passwords, so whoever reaches a database is the user ``default``.

The rules are told to a running server one by one, as versions differ in the subcommands that they know; the user is
switched on last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ..engine.protocol import WORKER

BASE = ("reset", "nopass", "sanitize-payload", "~*", "&*", "-@all")
DATA = ("+@read", "+@write", "+@pubsub", "+@transaction", "+@connection")
WITHOUT = ("-@dangerous", "-@admin", "-@scripting")
"""Scripts, modules, replication, migration, debugging, shutting down, other users' connections: all of these."""
AGAIN = (
    "+info", "+keys", "+sort", "+flushdb", "+flushall", "+save", "+bgsave", "+lastsave", "+config|get", "+command",
    "+cluster|slots", "+cluster|info", "+cluster|nodes", "+cluster|keyslot", "+cluster|myid", "+cluster|countkeysinslot",
    "+readonly", "+readwrite", "+asking", "+client|setname", "+client|getname", "+client|id", "+ping", "+echo", "+hello",
    "+auth", "+select", "+dbsize", "+time",
)  # fmt: skip
"""Harmless commands that Redis counts among the dangerous ones, or that some versions have in no category."""
ENGINE = (
    "+asim.configset", "+ai.tensorset", "+ai.tensorget", "+ai.modelstore", "+ai.modelget", "+ai.modeldel",
    "+ai.modelexecute", "+ai.modelrun", "+ai._modelscan", "+ai.scriptset", "+ai.scriptstore", "+ai.scriptget",
    "+ai.scriptdel", "+ai.scriptrun", "+ai.scriptexecute", "+ai._scriptscan", "+ai.info", "+ai.config", "+ai.dagexecute",
    "+ai.dagexecute_ro", "+ai.dagrun", "+ai.dagrun_ro", "+ai.modelset",
)  # fmt: skip
NEWER = ("+cluster|shards", "+cluster|links", "+client|setinfo", "+client|info", "+acl|whoami", "+memory|usage")
"""What not every version has."""


def rules() -> Iterator[tuple[tuple[str, ...], bool]]:
    """``ACL SETUSER default`` arguments in order, each with whether the server must accept it."""
    yield (*BASE, *DATA, *WITHOUT), True
    for rule in AGAIN:
        yield (rule,), True
    for rule in (*ENGINE, *NEWER):
        yield (rule,), False
    yield ("on",), True


def worker_rule(password: str) -> tuple[str, ...]:
    """``ACL SETUSER`` arguments for the inference workers: their commands, no keys, and nothing else."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    commands = ("+asim.next", "+asim.done", "+asim.fetch")
    return (WORKER, "reset", "on", f"#{digest}", "resetkeys", "resetchannels", "-@all", *commands)
