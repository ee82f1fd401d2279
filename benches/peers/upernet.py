"""The peer of benches/upernet.rs: training steps of UPerNet in eager PyTorch.

Feature2Pyramid, UPerHead and FCNHead as mmsegmentation builds them for Copernicus-Bench, in plain torch.nn, with its names of
parameters and without dropout. Weights, four maps and labels come from a safetensors file. For every line on standard input, takes a
step and prints a line with its loss, the seconds for forward, backward and AdamW, and the CPU seconds of all
threads.
"""

import argparse
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


def resize(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class ConvNormRelu(nn.Module):
    def __init__(self, i, o, k):
        super().__init__()
        self.conv = nn.Conv2d(i, o, k, padding=k // 2, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Neck(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.upsample_4x = nn.Sequential(
            nn.ConvTranspose2d(d, d, 2, 2), nn.BatchNorm2d(d), nn.GELU(), nn.ConvTranspose2d(d, d, 2, 2)
        )
        self.upsample_2x = nn.Sequential(nn.ConvTranspose2d(d, d, 2, 2))
        self.down = nn.MaxPool2d(2, 2)

    def forward(self, maps):
        return [self.upsample_4x(maps[0]), self.upsample_2x(maps[1]), maps[2], self.down(maps[3])]


class UPerHead(nn.Module):
    def __init__(self, d, c, classes, scales=(1, 2, 3, 6)):
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(s), ConvNormRelu(d, c, 1)) for s in scales
        )
        self.bottleneck = ConvNormRelu(d + len(scales) * c, c, 3)
        self.lateral_convs = nn.ModuleList(ConvNormRelu(d, c, 1) for _ in range(3))
        self.fpn_convs = nn.ModuleList(ConvNormRelu(c, c, 3) for _ in range(3))
        self.fpn_bottleneck = ConvNormRelu(4 * c, c, 3)
        self.conv_seg = nn.Conv2d(c, classes, 1)

    def forward(self, maps):
        top = maps[3]
        pooled = [top] + [resize(pool(top), top.shape[2:]) for pool in self.psp_modules]
        levels = [lateral(x) for lateral, x in zip(self.lateral_convs, maps)] + [self.bottleneck(torch.cat(pooled, 1))]
        for i in (3, 2, 1):
            levels[i - 1] = levels[i - 1] + resize(levels[i], levels[i - 1].shape[2:])
        outs = [conv(x) for conv, x in zip(self.fpn_convs, levels)] + [levels[3]]
        outs = [outs[0]] + [resize(x, outs[0].shape[2:]) for x in outs[1:]]
        return self.conv_seg(self.fpn_bottleneck(torch.cat(outs, 1)))


class FcnHead(nn.Module):
    def __init__(self, d, c, classes):
        super().__init__()
        self.convs = nn.Sequential(ConvNormRelu(d, c, 3))
        self.conv_seg = nn.Conv2d(c, classes, 1)

    def forward(self, maps):
        return self.conv_seg(self.convs(maps[2]))


class Network(nn.Module):
    def __init__(self, d, c, a, classes):
        super().__init__()
        self.neck = Neck(d)
        self.decoder = UPerHead(d, c, classes)
        self.aux_head = FcnHead(d, a, classes)

    def loss(self, maps, labels):
        pyramid = self.neck(maps)
        losses = [
            F.cross_entropy(resize(head(pyramid), labels.shape[1:]), labels, ignore_index=255)
            for head in (self.decoder, self.aux_head)
        ]
        return losses[0] + 0.4 * losses[1]


def main():
    # Not above: gpu.py takes the heads from here, where there may be no safetensors.
    from safetensors.torch import load_file

    parser = argparse.ArgumentParser()
    for name in ["--given", "--threads"]:
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(int(arguments.threads))
    torch.manual_seed(0)
    given = load_file(arguments.given)
    maps = [given.pop(f"map{i}") for i in range(4)]
    labels = given.pop("labels").long()
    classes, c = given["decoder.conv_seg.weight"].shape[:2]
    network = Network(maps[0].shape[1], c, given["aux_head.conv_seg.weight"].shape[1], classes)
    # What is not given is the count of batches that norms have seen.
    missing = network.load_state_dict(given, strict=False)
    assert not missing.unexpected_keys and all("num_batches" in name for name in missing.missing_keys), missing
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-4)

    def step():
        cpu, start = time.process_time(), time.perf_counter()
        optimizer.zero_grad()
        loss = network.loss(maps, labels)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        optimizer.step()
        end, cpu = time.perf_counter(), time.process_time() - cpu
        return loss, (forward - start, backward - forward, end - backward, cpu)

    for _ in sys.stdin:
        loss, times = step()
        print(loss.item(), *times, flush=True)


if __name__ == "__main__":
    main()
