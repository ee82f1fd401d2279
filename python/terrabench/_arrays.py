"""Turns received bytes into the caller's kind of array, and what a model returns into bytes.

numpy and torch are imported only if the caller uses them.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from array import array
from collections.abc import Sequence
from math import prod
from typing import Any

from ._errors import Error
from ._safetensors import Tensor

KINDS = ("torch", "numpy", "memoryview")
"""Kinds of arrays that a model can receive."""

_FORMATS = {
    "F64": "d", "F32": "f", "I64": "q", "U64": "Q", "I32": "i", "U32": "I",
    "I16": "h", "U16": "H", "I8": "b", "U8": "B", "BOOL": "?",
}  # fmt: skip
_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U64": "<u8", "I32": "<i4", "U32": "<u4",
    "I16": "<i2", "U16": "<u2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "U16": "uint16", "U32": "uint32", "U64": "uint64",
}  # fmt: skip


def is_installed(name: str) -> bool:
    """Whether a library can be imported, without importing it."""
    if name in sys.modules:
        return sys.modules[name] is not None
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def usual_kind() -> str:
    """Returns the kind of array for a model that does not show which it takes: torch if it was imported, else numpy if
    it is installed, else plain memory views."""
    if "torch" in sys.modules:
        return "torch"
    return "numpy" if is_installed("numpy") else "memoryview"


def checked_kind(kind: str | None) -> str:
    """Returns the requested kind of array, or the usual one.

    Raises:
        Error: if the kind is unknown or its library is not installed.
    """
    if kind is None:
        return usual_kind()
    if kind not in KINDS:
        raise Error(f"arrays: expected one of {', '.join(KINDS)}, found {kind!r}")
    if kind != "memoryview" and not is_installed(kind):
        raise Error(f"arrays={kind!r}: {kind} is not installed\n  help: pip install {kind}")
    return kind


class Buffers:
    """Gives writable buffers for received messages, and gives a buffer again once nothing refers to it any more.

    New memory costs about as much as filling it, because the system clears each page first.
    """

    _MOST = 8

    def __init__(self, kind: str, device: str) -> None:
        self.kind, self.pinned = kind, kind == "torch" and device.startswith("cuda")
        self.kept: list[Any] = []

    def __call__(self, size: int) -> memoryview:
        """Returns a buffer of `size` bytes: pinned memory for a GPU."""
        for buffer in self.kept:
            # The list, the loop's variable and the call's argument; each view of the buffer adds one.
            if len(buffer) >= size and sys.getrefcount(buffer) == 3:
                return memoryview(buffer).cast("B")[:size]
        buffer = self._new(size)
        self.kept = [*self.kept[-self._MOST + 1 :], buffer]
        return memoryview(buffer).cast("B")

    def _new(self, size: int) -> Any:
        if self.kind == "torch":
            import torch

            # Copies from pinned memory to a GPU run beside the model. A buffer is free only after the features came
            # back from the GPU, so after the copy of the images.
            tensor = torch.empty(max(size, 1), dtype=torch.uint8, pin_memory=self.pinned)
            return _memory(tensor)
        if self.kind == "numpy":
            import numpy

            return numpy.empty(size, dtype=numpy.uint8)
        return bytearray(size)


def _memory(tensor: Any) -> Any:
    """The memory of a contiguous tensor on the CPU, which keeps the tensor alive."""
    size = tensor.numel() * tensor.element_size()
    memory = (ctypes.c_ubyte * size).from_address(tensor.data_ptr())
    memory.kept = tensor
    return memory


def view_of(tensor: Any) -> memoryview:
    """Returns the bytes of a contiguous torch tensor on the CPU, without copying them."""
    return memoryview(_memory(tensor)).cast("B") if tensor.numel() else memoryview(b"")


def received(tensor: Tensor, kind: str) -> Any:
    """Returns a received tensor as an array of the requested kind, without copying its bytes.

    Raises:
        Error: if that kind of array lacks the type.
    """
    if kind == "torch":
        import torch

        dtype = getattr(torch, _TORCH[tensor.dtype], None)
        if dtype is None:
            raise Error(f"this torch has no type for {tensor.dtype}\n  help: use a newer torch, or arrays='numpy'")
        if len(tensor.data) == 0:
            return torch.empty(tensor.shape, dtype=dtype)
        return torch.frombuffer(tensor.data, dtype=dtype).reshape(tensor.shape)
    if tensor.dtype not in _FORMATS:
        raise Error(f"arrays={kind!r} has no type for {tensor.dtype}\n  help: use arrays='torch'")
    if kind == "numpy":
        import numpy

        return numpy.frombuffer(tensor.data, dtype=_NUMPY[tensor.dtype]).reshape(tensor.shape)
    bytes_of: Any = tensor.data
    # A view cannot have a length of 0 among several.
    return bytes_of.cast(_FORMATS[tensor.dtype], *([tensor.shape] if prod(tensor.shape) else []))


def best(tensor: Tensor) -> Any:
    """Returns a tensor from a file as a numpy array where numpy is installed, else as a memory view."""
    return received(tensor, "numpy" if is_installed("numpy") else "memoryview")


def shape_of(values: Any) -> tuple[int, ...] | None:
    """Returns the shape of an array or of nested lists; `None` if it has none."""
    shape = getattr(values, "shape", None)
    if shape is not None:
        try:
            return tuple(int(length) for length in shape)
        except TypeError:
            return None
    if isinstance(values, (list, tuple)):
        if not values:
            return (0,)
        inner = shape_of(values[0])
        return None if inner is None else (len(values), *inner)
    if isinstance(values, (bytes, bytearray, str)):
        return None
    if isinstance(values, array):
        return (len(values),)
    return () if isinstance(values, (int, float)) else None


def sent(values: Any) -> Tensor:
    """Returns what a model gave as a tensor to send: float16 and bfloat16 as they are, all others as float32.

    Raises:
        Error: if it is not an array of numbers.
    """
    module = sys.modules.get("torch")
    if module is not None and isinstance(values, module.Tensor):
        return _from_torch(module, values)
    if isinstance(values, (list, tuple, array)):
        return _from_lists(values)
    if isinstance(values, memoryview) and not is_installed("numpy"):
        return _from_lists(values.tolist())
    if is_installed("numpy"):
        return _from_numpy(values)
    raise Error(f"expected an array of numbers from the model, found {type(values).__name__}")


def _from_torch(torch: Any, values: Any) -> Tensor:
    values = values.detach()
    names = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
    if values.dtype not in names:
        values = values.to(torch.float32)
    values = values.to("cpu").contiguous()
    return Tensor(names[values.dtype], tuple(values.shape), view_of(values))


def _from_numpy(values: Any) -> Tensor:
    import numpy

    numbers: Any
    try:
        numbers = numpy.asarray(values)
    except Exception as problem:  # whatever the array's own conversion raises
        name = type(values).__name__
        raise Error(f"expected an array of numbers from the model, found {name}: {problem}") from problem
    if str(numbers.dtype) == "bfloat16":
        dtype, numbers = "BF16", numpy.ascontiguousarray(numbers).view(numpy.uint16)
    elif numbers.dtype == numpy.float16:
        dtype, numbers = "F16", numpy.ascontiguousarray(numbers)
    elif numbers.dtype.kind in "fiub":
        dtype, numbers = "F32", numpy.ascontiguousarray(numbers, dtype="<f4")
    else:
        raise Error(f"expected an array of numbers from the model, found one of {numbers.dtype}")
    data = memoryview(numbers).cast("B") if numbers.size else memoryview(b"")
    return Tensor(dtype, numbers.shape, data)


def _from_lists(values: Sequence[Any]) -> Tensor:
    shape = shape_of(values)
    if shape is None:
        raise Error("expected an array of numbers from the model, found lists of something else")
    flat = array("f")
    _flatten(values, shape, flat)
    if sys.byteorder == "big":
        flat.byteswap()
    return Tensor("F32", shape, memoryview(flat).cast("B"))


def _flatten(values: Any, shape: tuple[int, ...], into: array[float]) -> None:
    if not shape:
        into.append(values)
        return
    if len(values) != shape[0]:
        raise Error(f"expected lists of equal length from the model, found {shape[0]} and {len(values)}")
    try:
        if len(shape) == 1:
            into.extend(values)
            return
        for inner in values:
            _flatten(inner, shape[1:], into)
    except TypeError as problem:
        raise Error(f"expected lists of numbers of equal depth from the model: {problem}") from None
