"""Dependencies between entities: every one must be known, and no cycle may stand in them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from .entities import Ensemble, Entity, Model, models_of
from .errors import ConfigError, allowed


def check_dependencies(found: Sequence[tuple[Model, Ensemble | None]], known: Collection[Entity]) -> None:
    """Refuse what could never start.

    :param found: what is being started.
    :param known: what was started before.
    :raises ConfigError: an entity waits for one that is neither started now nor was before, or (through others) for
        itself; the text names the chain.
    """
    if not any(model._after or (ensemble is not None and ensemble._after) for model, ensemble in found):
        return
    edges: dict[Entity, list[Entity]] = {}
    for model, ensemble in found:
        edges[model] = [other for other, _ in model._after]
        if ensemble is not None:
            edges[model] += [other for other, _ in ensemble._after]
            edges.setdefault(ensemble, []).append(model)
    _check_known(edges, known)
    for other in [other for others in edges.values() for other in others]:
        if isinstance(other, Ensemble):
            edges.setdefault(other, list(other.models))
    _check_cycles(edges)


def _check_known(edges: dict[Entity, list[Entity]], known: Collection[Entity]) -> None:
    for entity, others in edges.items():
        for other in others:
            parts = models_of(other)
            if other not in edges and not all(part in edges or part in known for part in parts):
                what = "is neither among what is started here nor was it started before"
                raise ConfigError(allowed(f"{entity.name}: after", other.name, what))


def _check_cycles(edges: dict[Entity, list[Entity]]) -> None:
    """Depth first without recursion: chains may be as long as there are entities."""
    done: set[Entity] = set()
    for root, first in edges.items():
        if root in done:
            continue
        path: list[Entity] = [root]
        on_path: set[Entity] = {root}
        stack: list[Iterator[Entity]] = [iter(first)]
        while stack:
            following = next(stack[-1], None)
            if following is None:
                stack.pop()
                left = path.pop()
                on_path.discard(left)
                done.add(left)
            elif following in on_path:
                chain = [*path[path.index(following) :], following]
                text = " waits for ".join(entity.name for entity in chain)
                raise ConfigError(allowed("after", chain[0].name, f"the dependencies go round in a circle: {text}"))
            elif following not in done and following in edges:
                path.append(following)
                on_path.add(following)
                stack.append(iter(edges[following]))
