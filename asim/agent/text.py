"""Bytes and text. Part of the agent program: standard library only."""


def raw(text):
    """Text of a frame as the bytes that it stands for."""
    return text.encode("utf-8", "surrogateescape")


def text(data):
    """Bytes of a path or an argument as text for a frame."""
    return data.decode("utf-8", "surrogateescape")
