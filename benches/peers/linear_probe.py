"""The peer of benches/linear_probe.rs, which gives the features: the same sweep as single PyTorch runs, one a learning rate.

Writes the training accuracy of every run, if no repetition is asked for. Prints one line a repetition: seconds with a shuffling
DataLoader, as Galileo's evaluation has it, and seconds with the batches cut from the tensor by index, which spares Python most of
the loader's work.
"""

import argparse
import math
import time

import torch
from safetensors.torch import load_file, save_file
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
    parser = argparse.ArgumentParser()
    for name in ["--features", "--accuracies", "--epochs", "--batch", "--rates"]:
        parser.add_argument(name, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    features = load_file(arguments.features)["features"]
    labels = torch.arange(len(features)) % 10
    epochs, batch = int(arguments.epochs), int(arguments.batch)

    def sweep(make_batches):
        rates = map(float, arguments.rates.split(","))
        return [train(make_batches, features, labels, 10, epochs, batch, rate) for rate in rates]

    if arguments.repetitions == 0:
        save_file({"accuracies": torch.tensor(sweep(by_index))}, arguments.accuracies)
    for _ in range(arguments.repetitions):
        seconds = []
        for make_batches in (by_loader, by_index):
            start = time.perf_counter()
            sweep(make_batches)
            seconds.append(time.perf_counter() - start)
        print(*seconds, flush=True)


main()
