"""The encoder's side of the wire: lines of JSON, some followed by the bytes of a safetensors file.

`docs/wire-protocol.md` of the program describes the messages. This file reads and writes them and knows no models.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from . import _safetensors
from ._errors import Error
from ._safetensors import Tensor

VERSION = 1
"""Version of the protocol."""

_LONGEST_LINE = 1 << 22
"""Limit of a line in bytes."""


class Allocator(Protocol):
    """Returns a writable buffer of that many bytes."""

    def __call__(self, size: int, /) -> Any: ...


class SharedMemory:
    """Memory that the program shares: files that it names, mapped once each."""

    def __init__(self) -> None:
        self._maps: dict[str, mmap.mmap] = {}

    @staticmethod
    def is_there(path: Any) -> bool:
        """Whether the file that the program offers can be opened: it cannot from within a container, or on another system."""
        return isinstance(path, str) and os.access(path, os.R_OK | os.W_OK)

    def copy(self, path: str, into: memoryview) -> None:
        """Fills a buffer from the start of a file.

        Raises:
            Error: if the file cannot be mapped, or is shorter.
        """
        try:
            if len(self._maps.get(path, b"")) < len(into):
                with open(path, "r+b") as file:
                    self._maps[path] = mmap.mmap(file.fileno(), 0)
            shared = self._maps[path]
        except (OSError, ValueError) as problem:
            raise Error(f"the program's shared memory {path} cannot be mapped: {problem}") from None
        if len(shared) < len(into):
            raise Error(f"expected {len(into)} bytes in the program's shared memory {path}, found {len(shared)}")
        with memoryview(shared) as view:
            into[:] = view[: len(into)]


@dataclass
class Message:
    """A message and the tensors that follow it."""

    header: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The message's name: `task`, `batch`, `end`."""
        return str(self.header.get("message"))


def read(
    stream: BinaryIO, allocate: Allocator = bytearray, memory: SharedMemory | None = None
) -> Message | None:
    """Reads the next message; `None` at the end of the stream. `memory` keeps what was mapped for the next message.

    Raises:
        Error: if the stream ends within a message, or the message is malformed.
    """
    line = stream.readline(_LONGEST_LINE)
    if not line:
        return None
    if not line.endswith(b"\n"):
        raise Error(f"the program's message was cut off after {len(line)} bytes: {line[:80]!r}")
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise Error(f"expected a line with a JSON object from the program, found {line[:80]!r}")
    size = header.get("bytes")
    if size is None:
        return Message(header)
    if not isinstance(size, int) or size < 0:
        raise Error(f"expected a number of bytes in the program's message, found {size!r}")
    buffer = allocate(size)
    view = memoryview(buffer).cast("B")
    path = header.get("shared")
    if isinstance(path, str):
        (memory or SharedMemory()).copy(path, view)
    done = size if isinstance(path, str) else 0
    while done < size:
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise Error(f"the program's message was cut off: expected {size} bytes, found {done}")
        done += got
    try:
        tensors, metadata = _safetensors.read(buffer)
    except _safetensors.Malformed as problem:
        raise Error(f"the program's message `{header.get('message')}` is damaged: {problem}") from None
    return Message(header, tensors, metadata)


def write(descriptor: int, header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
    """Writes a message.

    Raises:
        BrokenPipeError: if the program has ended.
    """
    parts: list[Any] = []
    if tensors is not None:
        parts = _safetensors.pieces(tensors)
        header = {**header, "bytes": _safetensors.size(parts)}
    line = json.dumps(header, separators=(",", ":")) + "\n"
    for part in [line.encode(), *parts]:
        view = memoryview(part)
        while len(view):
            view = view[os.write(descriptor, view) :]
