"""The peer of benches/upernet.rs: one training step of UPerNet in eager PyTorch.

Feature2Pyramid, UPerHead and FCNHead as mmsegmentation builds them for Copernicus-Bench, in plain torch.nn.
Arguments: embed_dim channels aux_channels classes batch grid threads.
For every line on standard input: one step, then one line with its loss, the seconds for forward, backward and AdamW,
and the CPU seconds of all threads.
"""

import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


def resize(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class ConvNormRelu(nn.Sequential):
    def __init__(self, i, o, k):
        super().__init__(nn.Conv2d(i, o, k, padding=k // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


class Neck(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.x4 = nn.Sequential(
            nn.ConvTranspose2d(d, d, 2, 2), nn.BatchNorm2d(d), nn.GELU(), nn.ConvTranspose2d(d, d, 2, 2)
        )
        self.x2 = nn.ConvTranspose2d(d, d, 2, 2)
        self.down = nn.MaxPool2d(2, 2)

    def forward(self, maps):
        return [self.x4(maps[0]), self.x2(maps[1]), maps[2], self.down(maps[3])]


class UPerHead(nn.Module):
    def __init__(self, d, c, classes, scales=(1, 2, 3, 6)):
        super().__init__()
        self.pools = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(s), ConvNormRelu(d, c, 1)) for s in scales)
        self.bottleneck = ConvNormRelu(d + len(scales) * c, c, 3)
        self.laterals = nn.ModuleList(ConvNormRelu(d, c, 1) for _ in range(3))
        self.outputs = nn.ModuleList(ConvNormRelu(c, c, 3) for _ in range(3))
        self.fuse = ConvNormRelu(4 * c, c, 3)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(c, classes, 1)

    def forward(self, maps):
        top = maps[3]
        pooled = [top] + [resize(pool(top), top.shape[2:]) for pool in self.pools]
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps)] + [self.bottleneck(torch.cat(pooled, 1))]
        for i in (3, 2, 1):
            levels[i - 1] = levels[i - 1] + resize(levels[i], levels[i - 1].shape[2:])
        outs = [conv(x) for conv, x in zip(self.outputs, levels)] + [levels[3]]
        outs = [outs[0]] + [resize(x, outs[0].shape[2:]) for x in outs[1:]]
        return self.classify(self.dropout(self.fuse(torch.cat(outs, 1))))


class FcnHead(nn.Module):
    def __init__(self, d, c, classes):
        super().__init__()
        self.conv = ConvNormRelu(d, c, 3)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(c, classes, 1)

    def forward(self, maps):
        return self.classify(self.dropout(self.conv(maps[2])))


def main():
    d, c, a, classes, batch, grid, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    neck, decoder, aux = Neck(d), UPerHead(d, c, classes), FcnHead(d, a, classes)
    modules = nn.ModuleList([neck, decoder, aux]).train()
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-4)
    maps = [torch.randn(batch, d, grid, grid) for _ in range(4)]
    side = 16 * grid
    labels = torch.randint(0, classes, (batch, side, side))
    for _ in sys.stdin:
        cpu, start = time.process_time(), time.perf_counter()
        optimizer.zero_grad()
        pyramid = neck(maps)
        logits = resize(decoder(pyramid), (side, side))
        aux_logits = resize(aux(pyramid), (side, side))
        loss = F.cross_entropy(logits, labels, ignore_index=255)
        loss = loss + 0.4 * F.cross_entropy(aux_logits, labels, ignore_index=255)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        optimizer.step()
        end, cpu = time.perf_counter(), time.process_time() - cpu
        print(loss.item(), forward - start, backward - forward, end - backward, cpu, flush=True)


if __name__ == "__main__":
    main()
