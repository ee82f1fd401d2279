"""How many images a second eager PyTorch fine-tunes TerraFM-B on, on the CPU: forward, backward and AdamW step.

Written for comparison with benches/finetune.rs, which gives weights (by the names of the published checkpoint, below `encoder`;
the new layer below `head`) and images: cross-entropy of a linear layer on the class token, gradients clipped to norm 1, AdamW,
float32. The encoder has the operations of the published code, with an explicit softmax in its attention. Writes the loss of the
first step, then prints images/s, one step a line.
"""

import argparse
import time

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) * (d // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, t, d))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Projection(nn.Module):
    def __init__(self, stem, width):
        super().__init__()
        self.proj1 = nn.Linear(stem, stem, bias=False)
        self.norm_input = nn.LayerNorm(stem)
        self.proj2 = nn.Linear(stem, stem)
        self.proj3 = nn.Linear(stem, width)

    def forward(self, x):
        return self.proj3(self.proj2(self.norm_input(self.proj1(x))))


class PatchEmbed(nn.Module):
    def __init__(self, bands, width, patch):
        super().__init__()
        self.s2_l1c_embed = nn.Parameter(torch.zeros(1, 3 * width))
        self.conv2d_s2_l1c = nn.Conv2d(bands, 3 * width, patch, stride=patch)
        self.projection = Projection(3 * width, width)

    def forward(self, images):
        return self.projection(self.conv2d_s2_l1c(images).flatten(2).transpose(1, 2) + self.s2_l1c_embed)


class Encoder(nn.Module):
    def __init__(self, width=768, depth=12, heads=12, bands=12, patch=16, grid=14):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.patch_embed = PatchEmbed(bands, width, patch)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images):
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.norm(self.blocks(x))[:, 0]


class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(768, classes)

    def forward(self, images):
        return self.head(self.encoder(images))


def main():
    # Not above: gpu.py takes the encoder from here, where there may be no safetensors.
    from safetensors.torch import load_file, save_file

    parser = argparse.ArgumentParser()
    for name in ["--weights", "--images", "--loss"]:
        parser.add_argument(name, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    weights = load_file(arguments.weights)
    network = Network(len(weights["head.bias"])).train()
    network.load_state_dict(weights)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    images = load_file(arguments.images)["images"]
    labels = torch.arange(len(images))
    for repetition in range(-1, arguments.repetitions):
        start = time.perf_counter()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - start
        if repetition < 0:
            save_file({"loss": loss.detach().reshape(1)}, arguments.loss)
        else:
            print(f"{len(images) / seconds:.3f}", flush=True)


if __name__ == "__main__":
    main()
