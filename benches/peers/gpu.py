"""How fast a pipeline that anyone would write in PyTorch does what `terrabench` does on a GPU.

    python benches/peers/gpu.py features DIR DEVICE PRECISION [LIMIT]   images/s from m-eurosat's files to pooled features
    python benches/peers/gpu.py upernet DEVICE BATCH                    images/s in training steps of UPerNet, eager
    python benches/peers/gpu.py finetune DEVICE BATCH                   images/s in training steps of an encoder of TerraFM-B's shape

Features need h5py: workers of a DataLoader read the bands, and the device normalises, resizes and encodes with a model of
TerraFM-B's shape and random weights. PRECISION is f32, tf32 or bf16 (autocast). Prints one number.
"""

import contextlib
import json
import pathlib
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

from finetune import Encoder

SIDE = 224


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def torch_device(name):
    """`libtorch:cuda:0` is what terrabench calls `cuda:0`, `flex` and `libtorch` are the CPU."""
    name = name.removeprefix("libtorch").removeprefix("flex").removeprefix(":")
    return torch.device(name or "cpu")


def features(folder, name, precision, limit):
    import h5py

    folder = pathlib.Path(folder)
    files = json.loads((folder / "default_partition.json").read_text())["train"][:limit]
    with h5py.File(folder / f"{files[0]}.hdf5") as first:
        bands = [key for key in sorted(first) if key[:2].isdigit()][:12]

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, index):
            with h5py.File(folder / f"{files[index]}.hdf5") as file:
                return torch.stack([torch.from_numpy(file[band][:]).float() for band in bands])

    device = torch_device(name)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    encoder = Encoder().eval().to(device)
    workers = min(15, max(1, (torch.get_num_threads() or 2) - 1))
    batch = 256 if device.type == "cuda" else 8
    loader = torch.utils.data.DataLoader(
        Images(), batch_size=batch, num_workers=workers, pin_memory=device.type == "cuda", persistent_workers=True
    )
    cast = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with torch.no_grad(), cast:
        encoder(torch.zeros(batch, 12, SIDE, SIDE, device=device))
        for _ in range(2):  # The first pass starts the workers.
            wait(device)
            start = time.perf_counter()
            pooled = []
            for images in loader:
                images = (images.to(device, non_blocking=True) - 1500.0) / 1000.0
                images = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
                pooled.append(encoder(images).float().cpu())
            seconds = time.perf_counter() - start
    assert torch.cat(pooled).shape == (len(files), 768)
    return len(files) / seconds


def steps(name, batch, step):
    device = torch_device(name)
    step(device)
    wait(device)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 3:
        step(device)
        wait(device)
        count += 1
    return count * batch / (time.perf_counter() - start)


def upernet(name, batch):
    from upernet import FcnHead, Neck, UPerHead, resize

    device, grid, classes = torch_device(name), 14, 10
    parts = nn.ModuleList([Neck(768), UPerHead(768, 512, classes), FcnHead(768, 256, classes)]).train().to(device)
    optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-4)
    maps = [torch.randn(batch, 768, grid, grid, device=device) for _ in range(4)]
    labels = torch.randint(0, classes, (batch, SIDE, SIDE), device=device)
    neck, decoder, aux = parts

    def step(_):
        optimizer.zero_grad()
        pyramid = neck(maps)
        loss = F.cross_entropy(resize(decoder(pyramid), (SIDE, SIDE)), labels)
        loss = loss + 0.4 * F.cross_entropy(resize(aux(pyramid), (SIDE, SIDE)), labels)
        loss.backward()
        optimizer.step()

    return steps(name, batch, step)


def finetune(name, batch):
    device = torch_device(name)
    network = nn.Sequential(Encoder(), nn.Linear(768, 10)).train().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    images = torch.rand(batch, 12, SIDE, SIDE, device=device) * 2 - 1
    labels = torch.arange(batch, device=device) % 10

    def step(_):
        F.cross_entropy(network(images), labels).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return steps(name, batch, step)


def main():
    what, *rest = sys.argv[1:]
    if what == "features":
        folder, name, precision, *limit = rest
        rate = features(folder, name, precision, int(limit[0]) if limit else None)
    elif what == "upernet":
        rate = upernet(rest[0], int(rest[1]))
    else:
        rate = finetune(rest[0], int(rest[1]))
    print(f"{rate:.2f}")


if __name__ == "__main__":
    main()
