"""Payloads for RESTORE that a server takes for its own: their version and checksum are right, whatever they contain."""

from __future__ import annotations

import struct


def _entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x95AC9329AC4BC9B5 if value & 1 else 0)
    return value


TABLE = [_entry(i) for i in range(256)]


def sealed(body: bytes, payload: bytes) -> bytes:
    """A RESTORE payload of ``body`` with the version of ``payload`` and a right checksum, so that a server reads it."""
    data, value = body + payload[-10:-8], 0
    for byte in data:
        value = TABLE[(value ^ byte) & 255] ^ (value >> 8)
    return data + struct.pack("<Q", value)
