"""k-NN in PyTorch and scikit-learn: the peers of benches/knn.rs, which gives the features. Writes the classes of PyTorch's, then prints
a line per repetition: the seconds of one product of unit vectors with top-k, of PyTorch from features to classes, and of scikit-learn.
"""

import argparse
import os
import time

parser = argparse.ArgumentParser()
parser.add_argument("--features", required=True)
parser.add_argument("--classes", required=True)
parser.add_argument("--threads", default="2")
parser.add_argument("--repetitions", type=int, default=3)
arguments = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = arguments.threads

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402

torch.set_num_threads(int(arguments.threads))
given = load_file(arguments.features)
train, queries = given["train"], given["queries"]
labels = torch.arange(len(train)) % 17
unit = lambda rows: rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-8)
unit_train, unit_queries = unit(train), unit(queries)


def product():
    """One matrix product of unit vectors, and the 20 best."""
    return (unit_queries @ unit_train.T).topk(20, dim=1)


def whole():
    """The same from raw features to classes, as terrabench::protocol::knn::predict."""
    similarities, indices = (unit(queries) @ unit(train).T).topk(20, dim=1)
    weights = (similarities / 0.07).exp()
    votes = torch.zeros(len(queries), 17).scatter_add_(1, labels[indices], weights)
    return votes.argmax(dim=1)


def scikit_learn():
    """Brute force, cosine, weighted by distance (its own weights)."""
    model = KNeighborsClassifier(20, algorithm="brute", metric="cosine", weights="distance")
    return model.fit(train.numpy(), labels.numpy()).predict(queries.numpy())


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


product(), scikit_learn()
save_file({"classes": whole().float()}, arguments.classes)
for _ in range(arguments.repetitions):
    print(seconds(product), seconds(whole), seconds(scikit_learn), flush=True)
