"""k-NN of 1,000 queries against 20,000 x 768 in PyTorch and scikit-learn: the peers of benches/knn.rs.

Needs torch and scikit-learn. Threads are those of $THREADS, 2 unless set. Prints the median of $REPEATS runs (9).
"""

import os
import statistics
import time

THREADS = os.environ.get("THREADS", "2")
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = THREADS
REPEATS = int(os.environ.get("REPEATS", "9"))

import torch  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402

torch.set_num_threads(int(THREADS))
generator = torch.Generator().manual_seed(0)
centres = torch.rand(17, 768, generator=generator) * 2 - 1
features = lambda n: centres[torch.arange(n) % 17] + torch.rand(n, 768, generator=generator) * 2 - 1
train, queries = features(20_000), features(1000)
labels = torch.arange(20_000) % 17
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


for name, run, repeats in [
    ("PyTorch, product and top-k", product, REPEATS),
    ("PyTorch, features to classes", whole, REPEATS),
    ("scikit-learn, brute force", scikit_learn, max(1, REPEATS // 3)),
]:
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    print(f"{name}: {statistics.median(seconds):.3f} s (median of {repeats}, {min(seconds):.3f} to {max(seconds):.3f})")
