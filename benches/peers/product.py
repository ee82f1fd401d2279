"""The best rate of PyTorch's product of two square float32 matrices, in 1e9 multiply-adds a second: a line per repetition.

    python product.py --sides 1024,2048 [--threads N] [--repetitions N]
"""

import argparse
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--sides", required=True)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--repetitions", type=int, default=3)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
pairs = [(torch.rand(side, side) - 0.5, torch.rand(side, side) - 0.5) for side in map(int, arguments.sides.split(","))]


def rate(a, b):
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return len(a) ** 3 / min(seconds) / 1e9


best = lambda: max(rate(a, b) for a, b in pairs)
best()
for _ in range(arguments.repetitions):
    print(f"{best():.2f}", flush=True)
