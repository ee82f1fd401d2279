"""An encoder for Terrabench that needs nothing but Python: the mean of each band.

    cargo xtask bench geobench --demo --encoder "python examples/encode.py"
"""

import array
import json
import mmap
import os
import struct
import sys

source = sys.stdin.buffer
sink = os.fdopen(os.dup(1), "wb")  # messages go to what was standard output,
os.dup2(2, 1)  # and every print() from here on to standard error
TYPES = {"F32": "f", "U8": "B", "U16": "H", "I16": "h"}
room = bytearray()  # for a batch, used again for the next
memory = {}  # what is shared with Terrabench, by path


def send(message, bytes_after=b""):
    sink.write(json.dumps(message).encode() + b"\n" + bytes_after)
    sink.flush()


def can_share(path):
    """Whether batches can come through shared memory: on Linux, if both programs run on one machine."""
    return path is not None and os.access(path, os.R_OK | os.W_OK)


def read_file(message):
    """The safetensors file of a batch: in shared memory, which is valid until the answer, or after the line."""
    global room
    length, path = message["bytes"], message.get("shared")
    if path is not None:
        if len(memory.get(path, b"")) < length:
            with open(path, "r+b") as file:
                memory[path] = mmap.mmap(file.fileno(), 0)
        return memoryview(memory[path])[:length]
    if len(room) < length:
        room = bytearray(length)
    file = memoryview(room)[:length]
    source.readinto(file)
    return file


def read_images(file):
    """The shape [n, bands, height, width] and the numbers of image0 in a safetensors file."""
    data = 8 + struct.unpack("<Q", file[:8])[0]
    image = json.loads(bytes(file[8:data]))["image0"]
    begin, end = image["data_offsets"]
    return image["shape"], file[data + begin : data + end].cast(TYPES[image["dtype"]])


def write_features(number, vectors):
    """Sends a list of vectors of one length as the features of a batch."""
    data = array.array("f", [value for vector in vectors for value in vector]).tobytes()
    shape = [len(vectors), len(vectors[0])]
    head = json.dumps({"pooled": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    file = struct.pack("<Q", len(head)) + head + data
    send({"message": "features", "id": number, "bytes": len(file)}, file)


def serve(encode, identity, pixels="float32"):
    """Answers until the end: encode(shape, numbers) gives a vector per image."""
    for line in source:
        message = json.loads(line)
        if message["message"] == "task" and message["want"] == "pooled":
            shared = can_share(message.get("shared"))
            ready = {"message": "ready", "terrabench": 1, "pixels": pixels, "identity": identity, "shared": shared}
            send(ready)
        elif message["message"] == "task":
            send({"message": "error", "text": f"there are no {message['want']} here, only pooled features"})
        elif message["message"] == "batch":
            write_features(message["id"], encode(*read_images(read_file(message))))
        elif message["message"] == "end":
            break


def band_means(shape, numbers):  # your model
    n, bands, height, width = shape
    size = height * width
    means = [sum(numbers[i * size : (i + 1) * size]) / size for i in range(n * bands)]
    return [means[i * bands : (i + 1) * bands] for i in range(n)]


if __name__ == "__main__":
    serve(band_means, identity="band means, version 1")
