"""Datasets and the bytes of their metadata."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asim import ConfigError, ConfigTypeError, DatabaseError, DataSet, EntityExistsError, KeyNotFoundError
from asim.client.dataset import decode_field, decode_metadata, encode_field, encode_metadata

MARK = [b".COMPLETE", b"1"]


def test_layout_of_numbers() -> None:
    """One byte for the type, then the values packed."""
    assert encode_field(np.array([1, 2], "i4")) == b"\3\1\0\0\0\2\0\0\0"
    codes = {"f8": 1, "f4": 2, "i4": 3, "i8": 4, "u4": 5, "u8": 6}
    assert {dtype: encode_field(np.zeros(1, dtype))[0] for dtype in codes} == codes


def test_layout_of_strings() -> None:
    """One byte for the type, then each string behind its length in eight bytes."""
    assert encode_field(["ab", ""]) == b"\7\2\0\0\0\0\0\0\0ab" + bytes(8)


@given(st.lists(st.text()))
def test_strings_both_ways(words: list[str]) -> None:
    """Any text comes out as it went in, also half of a pair of surrogates that came from bytes."""
    words = [word.encode(errors="replace").decode() for word in words]
    assert decode_field(encode_field(words)) == words


@given(st.binary(max_size=40))
def test_any_bytes_are_a_field_or_an_error(data: bytes) -> None:
    """Bytes that are no field are a ValueError, and what is one is written as it was read."""
    try:
        field = decode_field(data)
    except ValueError:
        return
    assert encode_field(field) == data


def test_datasets_both_ways() -> None:
    """Metadata and the names of tensors come out of the hash that they go into."""
    dataset = DataSet("d")
    dataset.add_meta_scalar("n", 1)
    dataset.add_meta_scalar("n", 2)
    dataset.add_meta_scalar("x", 0.5)
    dataset.add_meta_scalar("f", np.float32(0.25))
    dataset.add_meta_string("s", "ü")
    dataset.add_tensor("t", np.zeros((2, 3), "i2"))
    got, tensors = decode_metadata("d", [*encode_metadata(dataset), *MARK])
    assert tensors == ["t"]
    assert got.get_metadata_field_names() == ["n", "x", "f", "s"]
    assert got.get_meta_scalars("n").tolist() == [1, 2]
    assert [got.get_metadata_field_type(name) for name in "nxfs"] == [np.int64, np.float64, np.float32, str]
    assert got.get_meta_strings("s") == ["ü"]
    assert dataset.get_tensor_dims("t") == [2, 3]
    assert dataset.get_tensor_type("t") == np.int16
    assert dataset.get_name() == dataset.name == "d"


def test_what_is_not_there() -> None:
    """A dataset that does not exist, or is not complete, is a KeyError with its name."""
    with pytest.raises(KeyNotFoundError, match="dataset 'd' does not exist"):
        decode_metadata("d", [])
    with pytest.raises(KeyError, match="not been put completely"):
        decode_metadata("d", [b"n", b"\3\0\0\0\0"])
    dataset = DataSet("d")
    for look in (dataset.get_tensor, dataset.get_meta_scalars, dataset.get_meta_strings, dataset.get_tensor_dims):
        with pytest.raises(KeyNotFoundError, match="dataset 'd' has no .* 'x'"):
            look("x")


def test_metadata_that_make_no_sense() -> None:
    """Broken metadata are an error with the dataset's name."""
    with pytest.raises(DatabaseError, match="dataset 'd': metadata that make no sense: unknown type 9"):
        decode_metadata("d", [b"n", b"\x09", *MARK])


def test_fields_have_one_type() -> None:
    """A field's first value decides its type."""
    dataset = DataSet("d")
    dataset.add_meta_scalar("n", 1)
    dataset.add_meta_string("s", "x")
    for call in (
        lambda: dataset.add_meta_scalar("n", 1.5),
        lambda: dataset.add_meta_scalar("s", 1),
        lambda: dataset.add_meta_string("n", "x"),
        lambda: dataset.add_meta_string("s", 1),
        lambda: dataset.add_meta_scalar("m", True),
        lambda: dataset.add_meta_scalar("m", np.zeros(2)),
        lambda: dataset.get_meta_strings("n"),
        lambda: dataset.get_meta_scalars("s"),
    ):
        with pytest.raises(ConfigTypeError):
            call()


def test_names_of_tensors() -> None:
    """A name is taken once, and the wire's own names are not allowed."""
    dataset = DataSet("d")
    dataset.add_tensor("t", np.zeros(1))
    with pytest.raises(EntityExistsError, match="'t'"):
        dataset.add_tensor("t", np.zeros(1))
    for name in ("", ".meta"):
        with pytest.raises(ConfigError, match="name"):
            dataset.add_tensor(name, np.zeros(1))
    with pytest.raises(ConfigTypeError, match="float32"):
        dataset.add_tensor("half", np.zeros(1, "f2"))
    assert repr(dataset) == "DataSet('d', tensors=['t'], metadata=[])"


@pytest.mark.parametrize("name", ["", "a}b", None])
def test_names_of_datasets(name: str) -> None:
    """A name that would break the placement in a cluster is refused."""
    with pytest.raises(ConfigError, match="name = "):
        DataSet(name)
