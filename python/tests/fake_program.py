"""Stands in for the program `terrabench` in the tests: speaks the wire, writes records.

The environment variable FAKE_SCENE names a JSON file that says what to do; what was seen is appended to FAKE_SEEN, one
JSON object per line. Written without the package, so that a mistake in the package does not cancel out.
"""

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path

SCENE = json.loads(Path(os.environ["FAKE_SCENE"]).read_text())
SLOT = os.memfd_create("fake") if SCENE.get("shared") else None
TYPES = {"F32": ("f", 4), "U16": ("H", 2), "U8": ("B", 1), "F64": ("d", 8), "I64": ("q", 8), "F16": ("e", 2)}


def saw(**what):
    with open(os.environ["FAKE_SEEN"], "a") as file:
        file.write(json.dumps(what) + "\n")


def pack(tensors):
    """tensors: {name: (type, shape, numbers)}"""
    header, body = {}, b""
    for name, (kind, shape, numbers) in tensors.items():
        data = struct.pack(f"<{len(numbers)}{TYPES[kind][0]}", *numbers)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def unpack(data):
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    found = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        code, size = TYPES.get(entry["dtype"], (None, None))
        numbers = list(struct.unpack(f"<{(end - start) // size}{code}", body[start:end])) if code else None
        found[name] = {"dtype": entry["dtype"], "shape": entry["shape"], "numbers": numbers}
    return found


def image(task):
    names = task.get("bands", ["B04", "B03", "B02"])
    return {
        "sensor": "s2-l2a",
        "date": None,
        "bands": [{"name": n, "wavelength_nm": 500.0, "bandwidth_nm": 30.0, "gsd_m": 10.0} for n in names],
        "side": 4,
        "stored_side": 4,
    }


def pixels(task, batch, n, kind="F32"):
    c = len(task.get("bands", ["B04", "B03", "B02"]))
    return kind, [n, c, 4, 4], [(batch * 7 + i) % 251 for i in range(n * c * 16)]


def bench(arguments):
    at = arguments.index("--encoder")
    read_end, write_end = (int(number) for number in arguments[at + 1].removeprefix("fd:").split(","))
    reader, writer = os.fdopen(read_end, "rb"), os.fdopen(write_end, "wb")
    saw(arguments=arguments)
    out = Path(arguments[arguments.index("--out") + 1]) / "geobench"

    def send(header, data=b""):
        if data:
            header["bytes"] = len(data)
        writer.write(json.dumps(header).encode() + b"\n" + data)
        writer.flush()

    def share(header, data):
        os.pwrite(SLOT, data, 0)
        send({**header, "bytes": len(data), "shared": f"/proc/{os.getpid()}/fd/{SLOT}"})

    def receive():
        line = reader.readline()
        if not line:
            saw(hung_up=True)
            return None, None
        header = json.loads(line)
        data = reader.read(header["bytes"]) if "bytes" in header else None
        return header, data and unpack(data)

    failures, written = [], []
    for task in SCENE["tasks"]:
        send(
            {
                "message": "task",
                "terrabench": SCENE.get("version", 1),
                "suite": "geobench",
                "task": task["name"],
                "images": [image(task)],
                "want": task.get("want", "pooled"),
                "batch_size": 2,
                "normalization": "dataset",
                **({"shared": f"/proc/{os.getpid()}/fd/{SLOT}"} if SLOT is not None else {}),
            }
        )
        header, _ = receive()
        saw(ready=header)
        ready = header
        if header is None or header["message"] == "error":
            failures.append(f"{task['name']}: {header}")
            continue
        if "crash" in task:
            sys.stderr.write(task["crash"])
            sys.stderr.flush()
            if task.get("signal"):
                os.kill(os.getpid(), signal.SIGKILL)
            sys.exit(task.get("code", 1))
        kind = task.get("pixels", "F32")
        total, got = 0, []
        for number, n in enumerate(task["batches"]):
            extra = {"days": ("F64", [n], [18000.0] * n)} if task.get("days") else {}
            (share if SLOT is not None and ready.get("shared") else send)(
                {"message": "batch", "id": number, "images": n},
                pack({"image0": pixels(task, number, n, kind), **extra}),
            )
            progress = {
                "progress": f"{task['name']} test",
                "done": sum(task["batches"][:number]),
                "total": sum(task["batches"]),
                "seconds": 1.0,
            }
            print(json.dumps(progress, separators=(",", ":")), file=sys.stderr, flush=True)
            header, tensors = receive()
            saw(features=header, tensors=tensors)
            if header is None or header["message"] == "error":
                failures.append(f"{task['name']}: the encoder failed: {header and header['text']}")
                break
            assert header["id"] == number
            total += n
            got.append(tensors)
        else:
            written.append(record(out, task, total))
        while task.get("hang"):
            time.sleep(0.1)
    try:
        send({"message": "end"})
    except BrokenPipeError:
        pass
    saw(end=True)
    print("a note of the program", file=sys.stderr)
    print("\nRecords and tables:\n" + "".join(f"  {path}\n" for path in written), flush=True)
    if failures:
        sys.exit("error: " + f"{len(failures)} failed; all others are recorded\n" + "\n".join(failures))
    sys.exit(SCENE.get("code", 0))


def record(out, task, value):
    (out / "records").mkdir(parents=True, exist_ok=True)
    path = out / "records" / f"{task['name']}.default.knn.x.seed0.0123456789abcdef.json"
    path.write_text(
        json.dumps(
            {
                "schema": 2,
                "fingerprint": "0" * 32,
                "settings": "0" * 32,
                "demo": False,
                "cell": {
                    "suite": "geobench",
                    "task": task["name"],
                    "partition": "default",
                    "protocol": "knn",
                    "model": "x",
                    "backbone": "y",
                    "seed": 0,
                },
                "metric": "accuracy",
                "value": float(value),
                "interval": None,
                "scores": {},
                "selected": {},
                "samples": {},
                "provenance": {"weights": "w", "data": "d", "sensor": "s2-l2a"},
            }
        )
    )
    return path


def batches(arguments):
    saw(arguments=arguments)
    out = sys.stdout.buffer
    counts = SCENE["batches"]
    out.write(
        json.dumps(
            {
                "message": "split",
                "terrabench": 1,
                "suite": "geobench",
                "task": "m-eurosat",
                "partition": "default",
                "split": "test",
                "samples": sum(counts),
                "batch_size": max(counts),
                "normalization": "dataset",
                "images": [image({})],
            }
        ).encode()
        + b"\n"
    )
    for number, n in enumerate(counts):
        data = pack({"labels": ("I64", [n], list(range(n))), "image0": pixels({}, number, n)})
        header = {
            "message": "batch",
            "id": number,
            "images": n,
            "samples": [f"{number}-{i}" for i in range(n)],
            "bytes": len(data),
        }
        out.write(json.dumps(header).encode() + b"\n" + data)
        out.flush()
        if SCENE.get("fail_after") == number:
            sys.exit("error: sample 3 is damaged\n  help: fetch it again")
    out.write(b'{"message":"end"}\n')


if __name__ == "__main__":
    {"bench": bench, "batches": batches}[sys.argv[1]](sys.argv[2:])
