"""How many images a second eager PyTorch fine-tunes, on the CPU: forward, backward and AdamW step.

Written for comparison with benches/finetune.rs: the encoder of backbone.py with a linear layer on its class token,
random weights, cross-entropy, gradients clipped to norm 1, AdamW, batches of 8, 224 x 224, 12 bands, float32.
Prints images/s, one step a line, after one step to warm up.
"""

import argparse
import time

import torch
from torch import nn

from backbone import Encoder


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = nn.Sequential(Encoder(), nn.Linear(768, 10)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    images = torch.rand(arguments.batch, 12, 224, 224) * 2 - 1
    labels = torch.arange(arguments.batch) % 10
    for repetition in range(-1, arguments.repetitions):
        start = time.perf_counter()
        nn.functional.cross_entropy(network(images), labels).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - start
        if repetition >= 0:
            print(f"{arguments.batch / seconds:.3f}", flush=True)


if __name__ == "__main__":
    main()
