"""The wire protocol (docs/wire-protocol.md) for encoders that compute with numpy or PyTorch."""

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import struct
import sys
import traceback
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

source = sys.stdin.buffer
sink = os.fdopen(os.dup(1), "wb")  # messages; everything that originals print goes to standard error
os.dup2(2, 1)

TYPES = {"F32": "<f4", "F64": "<f8", "U8": "u1", "U16": "<u2", "I16": "<i2"}


def _send(message, tensors=None):
    index, chunks, length = {}, [], 0
    for name, values in (tensors or {}).items():
        values = np.ascontiguousarray(values, dtype="<f4")
        index[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [length, length + values.nbytes]}
        chunks.append(values)
        length += values.nbytes
    head = json.dumps(index).encode()
    if tensors is not None:
        message = {**message, "bytes": 8 + len(head) + length}
    sink.write(json.dumps(message).encode() + b"\n")
    if tensors is not None:
        sink.write(struct.pack("<Q", len(head)) + head)
        for chunk in chunks:
            sink.write(chunk.data)
    sink.flush()


room = bytearray()  # for a batch, used again for the next


def _receive(count):
    global room
    if len(room) < count:
        room = bytearray(count)
    file = memoryview(room)[:count]
    view, filled = file, 0
    while filled < count:
        read = source.readinto(view[filled:])
        if not read:
            sys.exit("the other side closed in the middle of a batch")
        filled += read
    begin = 8 + struct.unpack_from("<Q", file)[0]
    tensors = {}
    for name, entry in json.loads(bytes(view[8:begin])).items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            values = np.frombuffer(view[begin + first : begin + end], dtype=TYPES[entry["dtype"]])
            tensors[name] = values.reshape(entry["shape"])
    return tensors


def numbers(values):
    """A numpy array of a tensor of PyTorch."""
    return values.detach().float().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def identity(path):
    """The hash of a file, or of all files of a folder by name."""
    path, digest = Path(path), hashlib.sha256()
    for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(file.name.encode())
        with open(file, "rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in self.names else None

    def create_module(self, spec):
        return MagicMock(__path__=[], __name__=spec.name, __spec__=spec)

    def exec_module(self, module):
        pass


def stand_in(*names):
    """Lets originals import libraries that are not installed, and that they need for their data sets only."""
    sys.meta_path.append(_StandIn([name for name in names if importlib.util.find_spec(name) is None]))


def serve(encode, identity, wants=("pooled",)):
    """Answers until the end: encode(image, pixels, want, context) of each batch.

    `image` describes the images (sensor, bands, side), `pixels` is [n, bands, height, width] in float32, `want` is one of
    `wants`, `context` may have `days` [n] and `places` [n, 2]. It returns pooled [n, width], or (tokens [n, rows * columns,
    width], (rows, columns)), or a list of (map [n, width, rows, columns], stride).
    """
    task = None
    for line in source:
        message = json.loads(line)
        try:
            if message["message"] == "end":
                return
            if message["message"] == "task":
                task = message
                ready = {"message": "ready", "terrabench": 1, "pixels": "float32", "identity": identity}
                _send({**ready, "wants": list(wants)})
            elif message["message"] == "batch":
                tensors = _receive(message["bytes"])
                image, want = task["images"][message.get("image", 0)], task["want"]
                context = {name: tensors[name] for name in ("days", "places") if name in tensors}
                features = encode(image, tensors["image0"], want, context)
                answer = {"message": "features", "id": message["id"]}
                if want == "pooled":
                    _send(answer, {"pooled": numbers(features)})
                elif want == "tokens":
                    _send({**answer, "grid": list(features[1])}, {"tokens": numbers(features[0])})
                else:
                    maps = {f"map{place}": numbers(values) for place, (values, _) in enumerate(features)}
                    _send({**answer, "strides": [stride for _, stride in features]}, maps)
        except Exception as error:
            _send({"message": "error", "text": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})
            if message["message"] == "batch":
                sys.exit(1)
    sys.exit("the other side closed without an end")
