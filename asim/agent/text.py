"""Bytes and text. Part of the agent program: standard library only."""


def raw(text):
    """Text of a frame as the bytes that it stands for."""
    return text.encode("utf-8", "surrogateescape")


def text(data):
    """Bytes of a path or an argument as text for a frame."""
    return data.decode("utf-8", "surrogateescape")


def attempt(make):
    """What ``make`` makes, or the ValueError that it raises: text that stands for no bytes is one job's error, not all's."""
    try:
        return make()
    except ValueError as exc:
        return exc
