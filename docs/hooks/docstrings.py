"""Docstrings as Markdown: roles become code, and "Cancellation:" paragraphs stand before the lists of fields.

The client's operations are written as generators and become methods; they are shown as these.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_FIELD = re.compile(r"^:(param|ivar|raises|returns)\b", re.MULTILINE)


def tidy(text: str) -> str:
    """The same docstring, as Markdown and mkdocstrings' Sphinx parser understand it."""
    text = _ROLE.sub(lambda match: f"``{match[1].removeprefix('asim.')}``", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    body: list[str] = []
    fields: list[str] = []
    target = body
    for line in text.splitlines():
        if _FIELD.match(line):
            target = fields
        elif line.strip() and not line[0].isspace() and target is fields:
            target = body  # an unindented line ends the field before it
            body.append("")
        target.append(line)
    return "\n".join([*body, "", *fields]).strip()


class Docstrings(griffe.Extension):
    """Applied to every object that is documented."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = tidy(obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Show an operation of the client as the method that it becomes: without ``core``, returning ``T``, not ``Op[T]``."""
        if not func.path.startswith("asim.client.operations."):
            return
        if func.parameters and func.parameters[0].name == "core":
            del func.parameters["core"]
        if isinstance(func.returns, griffe.ExprSubscript) and str(func.returns.left) == "Op":
            func.returns = func.returns.slice
