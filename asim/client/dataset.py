"""A dataset: named tensors and metadata that travel together, and the bytes of its metadata, without any I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from ..errors import ConfigError, ConfigTypeError, DatabaseError, EntityExistsError, KeyNotFoundError, allowed
from .codec import Array, from_array

COMPLETE = b".COMPLETE"
NAMES = b".tensor_names"
STRING = 7
SCALARS = {1: "float64", 2: "float32", 3: "int32", 4: "int64", 5: "uint32", 6: "uint64"}
CODES = {name: code for code, name in SCALARS.items()}

Field = Array | list[str]
Item = TypeVar("Item")


class DataSet:
    """Tensors and metadata under one name.

    Metadata fields hold lists: adding to a field that exists appends to it. Everything stays in this process until
    ``put_dataset``.

    :param name: under which it is stored; a ``}`` in it would break its placement in a cluster.
    :raises ConfigError: the name is empty or has a ``}``.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name or "}" in name:
            raise ConfigError(allowed("name", name, "must be a string that is not empty and has no '}'"))
        self._name = name
        self._tensors: dict[str, Array] = {}
        self._fields: dict[str, Field] = {}

    def __repr__(self) -> str:
        return f"DataSet({self._name!r}, tensors={self.get_tensor_names()}, metadata={self.get_metadata_field_names()})"

    @property
    def name(self) -> str:
        """Under which it is stored."""
        return self._name

    def get_name(self) -> str:
        """The same, by SmartRedis' word."""
        return self._name

    def add_tensor(self, name: str, data: Array) -> None:
        """Add a tensor. The array is not copied: it is sent as it is at the time of ``put_dataset``.

        :param name: unique among the tensors of this dataset; not empty, not ``.meta``.
        :param data: an array of any shape and memory layout, of a type that the wire knows.
        :raises ConfigError: the name is not allowed, a dimension is zero, or (:class:`ConfigTypeError`) the elements
            have no type on the wire; (:class:`EntityExistsError`) the name is taken.
        """
        if not isinstance(name, str) or not name or name == ".meta":
            raise ConfigError(allowed("name", name, "must be a string that is not empty and not '.meta'"))
        if name in self._tensors:
            raise EntityExistsError(allowed("name", name, f"is already a tensor of dataset {self._name!r}"))
        from_array(data, name)
        self._tensors[name] = data if isinstance(data, np.ndarray) else np.asarray(data)

    def get_tensor(self, name: str) -> Array:
        """A tensor, as it was added or received, not a copy.

        :raises KeyNotFoundError: there is none of this name.
        """
        return _look_up(self._tensors, name, f"dataset {self._name!r} has no tensor {name!r}")

    def get_tensor_names(self) -> list[str]:
        """The names of the tensors."""
        return list(self._tensors)

    def get_tensor_type(self, name: str) -> np.dtype[Any]:
        """The type of a tensor's elements.

        :raises KeyNotFoundError: there is none of this name.
        """
        return self.get_tensor(name).dtype

    def get_tensor_dims(self, name: str) -> list[int]:
        """The lengths of a tensor's dimensions.

        :raises KeyNotFoundError: there is none of this name.
        """
        return list(self.get_tensor(name).shape)

    def add_meta_scalar(self, name: str, data: float | np.generic) -> None:
        """Append a number to a metadata field.

        :param name: the field; it is made if there is none.
        :param data: an int (stored as int64), a float (float64), or a numpy scalar of float32, float64, int32, int64,
            uint32 or uint64.
        :raises ConfigTypeError: another type, or not the type of the numbers that the field already has.
        """
        value = np.asarray(data)
        if value.size != 1 or value.dtype.name not in CODES:
            raise ConfigTypeError(allowed(name, data, f"must be one number of {', '.join(CODES)}"))
        field = self._fields.get(_field_name(name))
        if field is None:
            self._fields[name] = value.reshape(1).copy()
        elif isinstance(field, list) or field.dtype != value.dtype:
            kind = "str" if isinstance(field, list) else field.dtype
            raise ConfigTypeError(allowed(name, data, f"must be of type {kind} as the rest of this field"))
        else:
            self._fields[name] = np.append(field, value.reshape(1))

    def add_meta_string(self, name: str, data: str) -> None:
        """Append a string to a metadata field.

        :param name: the field; it is made if there is none.
        :raises ConfigTypeError: it is no string, or the field has numbers.
        """
        field = self._fields.setdefault(_field_name(name), [])
        if not isinstance(data, str) or not isinstance(field, list):
            raise ConfigTypeError(allowed(name, data, "must be a string, in a field of strings"))
        field.append(data)

    def get_meta_scalars(self, name: str) -> Array:
        """The numbers of a metadata field, as an array of one dimension.

        :raises KeyNotFoundError: there is no such field.
        :raises ConfigTypeError: it has strings.
        """
        field = self._field(name)
        if isinstance(field, list):
            raise ConfigTypeError(allowed(name, "a field of strings", "must be a field of numbers"))
        return field

    def get_meta_strings(self, name: str) -> list[str]:
        """The strings of a metadata field.

        :raises KeyNotFoundError: there is no such field.
        :raises ConfigTypeError: it has numbers.
        """
        field = self._field(name)
        if not isinstance(field, list):
            raise ConfigTypeError(allowed(name, "a field of numbers", "must be a field of strings"))
        return list(field)

    def get_metadata_field_names(self) -> list[str]:
        """The names of the metadata fields."""
        return list(self._fields)

    def get_metadata_field_type(self, name: str) -> type:
        """``str``, or numpy's scalar type of the numbers.

        :raises KeyNotFoundError: there is no such field.
        """
        field = self._field(name)
        return str if isinstance(field, list) else field.dtype.type

    def _field(self, name: str) -> Field:
        return _look_up(self._fields, name, f"dataset {self._name!r} has no metadata field {name!r}")


def _look_up(items: Mapping[str, Item], name: str, missing: str) -> Item:
    """An item, or asim's error."""
    if name not in items:
        raise KeyNotFoundError(missing)
    return items[name]


def _field_name(name: str) -> str:
    """A metadata field's name; those that begin with a dot are the format's own."""
    if not isinstance(name, str) or not name or name.encode() in (COMPLETE, NAMES):
        raise ConfigError(allowed("name", name, "must be a string that is not empty, '.COMPLETE' or '.tensor_names'"))
    return name


# -- the bytes of metadata: one that says the type, then numbers packed, or strings each with 8 bytes of length before it


def encode_field(field: Field) -> bytes:
    """A metadata field as it is stored, in the machine's byte order."""
    if isinstance(field, list):
        words = [word.encode(errors="surrogateescape") for word in field]
        return b"".join([bytes([STRING]), *(struct.pack("=Q", len(word)) + word for word in words)])
    return bytes([CODES[field.dtype.name]]) + field.tobytes()


def decode_field(data: bytes) -> Field:
    """The reverse of :func:`encode_field`.

    :raises ValueError: the bytes make no sense.
    """
    code = data[0] if data else 0
    if code == STRING:
        return [word.decode(errors="surrogateescape") for word in _words(data)]
    if code not in SCALARS:
        raise ValueError(f"unknown type {code}")
    return np.frombuffer(bytearray(data[1:]), SCALARS[code])


def _words(data: bytes) -> Iterator[bytes]:
    """The strings after the type byte."""
    position = 1
    while position < len(data):
        if position + 8 > len(data):
            raise ValueError("a length is cut off")
        (size,) = struct.unpack_from("=Q", data, position)
        position += 8 + size
        if position > len(data):
            raise ValueError("a string is cut off")
        yield data[position - size : position]


def encode_metadata(dataset: DataSet) -> list[bytes]:
    """Names and values of the metadata hash, flat, without the field that marks a dataset as complete."""
    fields: dict[str, Field] = {NAMES.decode(): dataset.get_tensor_names()} if dataset.get_tensor_names() else {}
    fields |= dataset._fields
    return [
        part for name, field in fields.items() for part in (name.encode(errors="surrogateescape"), encode_field(field))
    ]


def decode_metadata(name: str, reply: list[bytes]) -> tuple[DataSet, list[str]]:
    """A dataset without tensors from the reply to HGETALL, and the names of its tensors.

    :raises KeyNotFoundError: there is no such dataset, or it has not been completed.
    :raises DatabaseError: it makes no sense.
    """
    values = dict(zip(reply[::2], reply[1::2], strict=True))
    if COMPLETE not in values:
        why = "has not been put completely" if values else "does not exist"
        raise KeyNotFoundError(f"dataset {name!r} {why}", f"HGETALL {name}")
    dataset = DataSet(name)
    try:
        fields = {
            key.decode(errors="surrogateescape"): decode_field(value)
            for key, value in values.items()
            if key != COMPLETE
        }
    except ValueError as exc:
        raise DatabaseError(f"dataset {name!r}: metadata that make no sense: {exc}", f"HGETALL {name}") from exc
    names = fields.pop(NAMES.decode(), [])
    dataset._fields = fields
    return dataset, list(map(str, names))


def with_tensors(dataset: DataSet, tensors: Mapping[str, Array]) -> DataSet:
    """Complete what :func:`decode_metadata` began."""
    dataset._tensors = dict(tensors)
    return dataset
