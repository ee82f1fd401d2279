"""The peer of benches/linear_probe.rs: the same sweep as single PyTorch runs, one a learning rate.

Usage: linear_probe.py SAMPLES WIDTH CLASSES EPOCHS BATCH THREADS REPEATS RATE...

Prints one line a repeat: seconds with a shuffling DataLoader, as Galileo's evaluation has it, and seconds with the
batches cut from the tensor by index, which spares Python most of the loader's work. Then the training accuracy of
every run, so that both sides can be seen to learn the same.
"""

import math
import sys
import time

import torch
from torch.utils.data import DataLoader, TensorDataset


def learning_rate(epoch, epochs, highest, lowest=1e-5):
    warmup = int(0.1 * epochs)
    if epoch < warmup:
        return highest * epoch / warmup
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


def by_loader(features, labels, batch):
    loader = DataLoader(TensorDataset(features, labels), batch_size=batch, shuffle=True)
    return len(loader), lambda: loader


def by_index(features, labels, batch):
    def batches():
        for rows in torch.randperm(len(features)).split(batch):
            yield features[rows], labels[rows]

    return math.ceil(len(features) / batch), batches


def train(make_batches, features, labels, classes, epochs, batch, rate):
    width = features.shape[1]
    probe = torch.nn.Sequential(torch.nn.BatchNorm1d(width), torch.nn.Linear(width, classes)).train()
    optimizer = torch.optim.AdamW(probe.parameters(), lr=rate)
    criterion = torch.nn.CrossEntropyLoss()
    steps, batches = make_batches(features, labels, batch)
    for epoch in range(epochs):
        for i, (x, y) in enumerate(batches()):
            criterion(probe(x), y).backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch + i / steps, epochs, rate)
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        return (probe.eval()(features).argmax(1) == labels).float().mean().item()


def main():
    samples, width, classes, epochs, batch, threads, repeats = map(int, sys.argv[1:8])
    rates = [float(rate) for rate in sys.argv[8:]]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    labels = torch.arange(samples) % classes
    features = torch.randn(samples, width) + 0.1 * torch.randn(classes, width)[labels]
    for repeat in range(repeats):
        seconds, accuracies = [], []
        for make_batches in (by_loader, by_index):
            start = time.perf_counter()
            accuracies.append(
                [train(make_batches, features, labels, classes, epochs, batch, rate) for rate in rates]
            )
            seconds.append(time.perf_counter() - start)
        print("seconds", *seconds, flush=True)
        if repeat == 0:
            print("accuracies", *accuracies[1], flush=True)


main()
