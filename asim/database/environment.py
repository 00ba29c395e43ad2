"""What applications are told about databases and keys: the variables that SmartRedis and :class:`asim.Client` read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..agent.protocol import Environment
from ..entities.model import Model
from .address import Address, address_variables, suffix


def key_variables(model: Model, addresses: Iterable[Address] = (), identifiers: Iterable[str] = ()) -> dict[str, str]:
    """The variables that say how a model's keys begin, for every database that it uses."""
    named = {"", *(suffix(address.identifier) for address in addresses), *map(suffix, identifiers)}
    values: dict[str, str] = {}
    for end in sorted(named):
        if model.incoming_entities:
            values[f"SSKEYIN{end}"] = ",".join(_sources(model))
        if model.query_key_prefixing():
            values[f"SSKEYOUT{end}"] = model.name
    return values


def _sources(model: Model) -> Iterable[str]:
    """The names whose keys it may read; of an ensemble, those of its members."""
    for entity in model.incoming_entities:
        members = getattr(entity, "models", None)
        yield from (member.name for member in members) if members is not None else (entity.name,)


def application_environment(
    model: Model, addresses: Iterable[Address], own: Environment, outside: Mapping[str, str]
) -> Environment:
    """``own`` (what the run settings say) with the variables of databases and keys; what is set by the user stays.

    :param addresses: the databases that run.
    :param outside: the driver's environment, which may name a database that asim did not start.
    """
    known = list(addresses)
    colocated = model.colocated_db
    foreign = [name[4:].removeprefix("_") for name in (*outside, *(key for key, _ in own)) if _is_ssdb(name)]
    if not known and colocated is None and not foreign:
        return own
    values: dict[str, str] = {}
    for address in known:
        values |= address_variables(address)
    if colocated is not None:
        foreign.append(colocated.db_identifier)
    values |= key_variables(model, known, foreign)
    given = {key for key, _ in own} | {key for key in values if key.startswith("SR_SOCKET_TIMEOUT") and key in outside}
    return (*own, *((key, value) for key, value in values.items() if key not in given))


def _is_ssdb(name: str) -> bool:
    return name == "SSDB" or name.startswith("SSDB_")
