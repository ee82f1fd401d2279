"""Buffers of received messages."""

import pytest

from terrabench import _arrays
from terrabench._safetensors import Tensor


def available(kind):
    if kind != "memoryview":
        pytest.importorskip(kind, reason=f"needs {kind}")


@pytest.mark.parametrize("kind", _arrays.KINDS)
def test_a_buffer_is_given_again_only_when_nothing_refers_to_it(kind):
    available(kind)
    buffers = _arrays.Buffers(kind, "cpu")
    first = buffers(64)
    first[:] = bytes(range(64))
    array = _arrays.received(Tensor("U8", (4,), first[8:12]), kind)
    part = array[1:]
    del first, array
    other = buffers(32)
    other[:] = bytes(32)
    assert [int(value) for value in part] == [9, 10, 11]
    del other, part
    count = len(buffers.kept)
    again = [buffers(64), buffers(32)]
    assert [len(view) for view in again] == [64, 32] and len(buffers.kept) == count
    buffers(65)
    assert len(buffers.kept) == count + 1


@pytest.mark.parametrize("kind", _arrays.KINDS)
def test_empty_tensors_have_their_shape(kind):
    available(kind)
    array = _arrays.received(Tensor("F32", (0, 3), memoryview(bytearray())), kind)
    assert len(array) == 0
    if kind != "memoryview":
        assert tuple(array.shape) == (0, 3)


def test_an_unknown_type_says_what_to_do():
    with pytest.raises(_arrays.Error, match="arrays='torch'"):
        _arrays.received(Tensor("BF16", (1,), memoryview(bytearray(2))), "memoryview")
