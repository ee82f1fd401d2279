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


def send(message, tensors=()):
    """Writes a line, and after it (name, shape, array of float32) as a safetensors file."""
    index, data = {}, b""
    for name, shape, values in tensors:
        offsets = [len(data), len(data) + 4 * len(values)]
        index[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        data += values.tobytes()
    head = json.dumps(index).encode()
    file = struct.pack("<Q", len(head)) + head + data if tensors else b""
    sink.write(json.dumps({**message, "bytes": len(file)}).encode() + b"\n" + file)
    sink.flush()


def encode(images, count):
    """Means of `count` images [count, bands, height, width]: count times bands numbers."""
    length = images["shape"][2] * images["shape"][3]
    pixels = images["values"]
    return array.array("f", (sum(pixels[i : i + length]) / length for i in range(0, len(pixels), length)))


for line in source:
    message = json.loads(line)
    if message["message"] == "task":
        if message["want"] != "pooled":
            send({"message": "error", "text": f"there are no {message['want']} here, only pooled features"})
            continue
        send({"message": "ready", "terrabench": 1, "pixels": "float32", "identity": "band means, version 1"})
    elif message["message"] == "batch":
        file = source.read(message["bytes"])
        begin = 8 + struct.unpack("<Q", file[:8])[0]
        image = json.loads(file[8:begin])["image0"]
        first, end = image["data_offsets"]
        image["values"] = array.array("f", file[begin + first : begin + end])
        means = encode(image, message["images"])
        shape = [message["images"], image["shape"][1]]
        send({"message": "features", "id": message["id"]}, [("pooled", shape, means)])
    elif message["message"] == "end":
        break
