"""Normalising and resizing images in PyTorch: the peer of benches/transform.rs, which gives images and statistics. Writes what comes
out, if no repetition is asked for; else prints a line per repetition: images/s of a batch at once, and of one image at a time.
"""

import argparse
import time

import torch
from safetensors.torch import load_file, save_file

parser = argparse.ArgumentParser()
for name in ["--images", "--out"]:
    parser.add_argument(name, required=True)
parser.add_argument("--side", type=int, required=True)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--repetitions", type=int, default=3)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
given = load_file(arguments.images)
images, mean, std = given["images"], given["mean"].view(1, -1, 1, 1), given["std"].view(1, -1, 1, 1)


def prepare(images):
    x = (images - mean) / std
    return torch.nn.functional.interpolate(x, size=(arguments.side, arguments.side), mode="bilinear", align_corners=False)


def rate(run):
    start = time.perf_counter()
    run()
    return len(images) / (time.perf_counter() - start)


whole = prepare(images)
if arguments.repetitions == 0:
    save_file({"images": whole}, arguments.out)
for _ in range(arguments.repetitions):
    print(rate(lambda: prepare(images)), rate(lambda: [prepare(image[None]) for image in images]), flush=True)
