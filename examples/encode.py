"""An encoder for Terrabench that needs nothing but Python: the mean of each band.

    cargo xtask bench geobench --demo --encoder "python examples/encode.py"
"""

import array
import json
import os
import struct
import sys

source = sys.stdin.buffer
sink = os.fdopen(os.dup(1), "wb")  # messages go to what was standard output,
os.dup2(2, 1)  # and every print() from here on to standard error


def send(message, bytes_after=b""):
    sink.write(json.dumps(message).encode() + b"\n" + bytes_after)
    sink.flush()


def read_images(length):
    """The shape [n, bands, height, width] and the numbers of image0 in a safetensors file of this length."""
    file = source.read(length)
    data = 8 + struct.unpack("<Q", file[:8])[0]
    image = json.loads(file[8:data])["image0"]
    begin, end = image["data_offsets"]
    return image["shape"], array.array("f", file[data + begin : data + end])


def write_features(number, n, width, values):
    """Sends values [n, width] as the features of a batch."""
    data = array.array("f", values).tobytes()
    index = {"pooled": {"dtype": "F32", "shape": [n, width], "data_offsets": [0, len(data)]}}
    head = json.dumps(index).encode()
    file = struct.pack("<Q", len(head)) + head + data
    send({"message": "features", "id": number, "bytes": len(file)}, file)


for line in source:
    message = json.loads(line)
    if message["message"] == "task" and message["want"] == "pooled":
        send({"message": "ready", "terrabench": 1, "pixels": "float32", "identity": "band means, version 1"})
    elif message["message"] == "task":
        send({"message": "error", "text": f"there are no {message['want']} here, only pooled features"})
    elif message["message"] == "batch":
        (n, bands, height, width), pixels = read_images(message["bytes"])
        size = height * width
        means = [sum(pixels[i * size : (i + 1) * size]) / size for i in range(n * bands)]  # your model
        write_features(message["id"], n, bands, means)
    elif message["message"] == "end":
        break
