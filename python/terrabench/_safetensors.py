"""Reads and writes safetensors: an 8-byte length, a JSON header, then the tensors' bytes, little-endian.

Own code, so that the package needs nothing but the standard library.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

SIZES = {
    "F64": 8, "I64": 8, "U64": 8,
    "F32": 4, "I32": 4, "U32": 4,
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes per number of each type."""

_LARGEST_HEADER = 100_000_000
"""Limit of the header in bytes, as in the reference implementation."""


class Tensor(NamedTuple):
    """A tensor's type, shape and bytes. The bytes are a view of the buffer that was read."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


class Malformed(ValueError):
    """The bytes are not a safetensors file."""


def read(buffer: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors by name and the metadata of a file in memory. Copies nothing.

    Raises:
        Malformed: if the bytes are not a complete safetensors file.
    """
    view = memoryview(buffer).cast("B")
    if len(view) < 8:
        raise Malformed(f"expected at least 8 bytes of safetensors, found {len(view)}")
    (length,) = struct.unpack("<Q", view[:8])
    if length > min(len(view) - 8, _LARGEST_HEADER):
        raise Malformed(f"expected a header of at most {len(view) - 8} bytes, found a length of {length}")
    try:
        header = json.loads(bytes(view[8 : 8 + length]))
    except (ValueError, RecursionError) as problem:
        raise Malformed(f"the header is not JSON: {problem}") from None
    if not isinstance(header, dict):
        raise Malformed("expected a JSON object as header")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise Malformed("expected a JSON object as `__metadata__`")
    body = view[8 + length :]
    return {name: _tensor(name, entry, body) for name, entry in header.items()}, metadata


def _tensor(name: str, entry: Any, body: memoryview) -> Tensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        size = SIZES[dtype]
        whole = all(isinstance(number, int) and number >= 0 for number in [*shape, start, end])
    except (KeyError, TypeError, ValueError):
        raise Malformed(f"the header's entry of tensor `{name}` is not understood: {entry!r:.200}") from None
    if not whole or end - start != size * prod(shape) or end > len(body):
        raise Malformed(
            f"tensor `{name}` of type {dtype} and shape {shape} does not fit its bytes {start} to {end} of {len(body)}"
        )
    return Tensor(dtype, tuple(shape), body[start:end])


def pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> list[Any]:
    """Returns the parts of a file, to be written one after the other. Tensors are not copied."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    # Larger types first, so that every tensor is aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-SIZES[item[1].dtype], item[0]))
    for name, tensor in ordered:
        end = at + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [struct.pack("<Q", len(text)) + text, *(tensor.data for _, tensor in ordered)]


def size(parts: Iterable[Any]) -> int:
    """Returns the number of bytes of the parts of a file."""
    return sum(len(part) for part in parts)
