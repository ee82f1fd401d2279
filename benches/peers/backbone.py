"""How many images a second a vision transformer of TerraFM-B's shape encodes in eager PyTorch on the CPU.

Written for comparison with benches/backbone.rs: the same shapes and operations (patch convolution to three
times the width, four-step projection, 12 blocks with an explicit softmax attention as the published code has
it, final norm, class token), random weights, batches of 8, 224 x 224, 12 bands, float32, no gradients.
Prints images/s, one repetition a line, after one batch to warm up.
"""

import argparse
import time

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def attention(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) * (d // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, t, d))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class Encoder(nn.Module):
    def __init__(self, width=768, depth=12, heads=12, bands=12, patch=16, grid=14):
        super().__init__()
        self.conv = nn.Conv2d(bands, 3 * width, patch, stride=patch)
        self.stem = nn.Parameter(torch.zeros(1, 3 * width))
        self.projection = nn.Sequential(
            nn.Linear(3 * width, 3 * width, bias=False),
            nn.LayerNorm(3 * width),
            nn.Linear(3 * width, 3 * width),
            nn.Linear(3 * width, width),
        )
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 1 + grid * grid, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images):
        x = self.conv(images).flatten(2).transpose(1, 2) + self.stem
        x = self.projection(x)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.norm(self.blocks(x))[:, 0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    encoder = Encoder().eval()
    images = torch.rand(arguments.batch, 12, 224, 224) * 2 - 1
    with torch.no_grad():
        for repetition in range(-1, arguments.repetitions):
            start = time.perf_counter()
            features = encoder(images)
            seconds = time.perf_counter() - start
            assert features.shape == (arguments.batch, 768)
            if repetition >= 0:
                print(f"{arguments.batch / seconds:.3f}", flush=True)


if __name__ == "__main__":
    main()
