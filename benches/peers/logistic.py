"""Logistic regression with many strengths in scikit-learn: the peer of benches/logistic.rs, which gives the features. Each fit begins
where the one before ended, as ours. Writes the best accuracy in percent, then prints a line per repetition: seconds.
"""

import argparse
import os
import time
import warnings

parser = argparse.ArgumentParser()
parser.add_argument("--features", required=True)
parser.add_argument("--best", required=True)
parser.add_argument("--strengths", type=int, default=40)
parser.add_argument("--threads", default="2")
parser.add_argument("--repetitions", type=int, default=1)
arguments = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = arguments.threads

import numpy as np  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

warnings.filterwarnings("ignore")
given = load_file(arguments.features)
train, valid = given["train"], given["valid"]
labels = lambda rows: np.arange(len(rows)) % 10


def sweep():
    model = LogisticRegression(tol=1e-6, max_iter=4000, warm_start=True)
    best = 0.0
    for c in np.logspace(-6, 4, arguments.strengths):
        model.C = c
        model.fit(train, labels(train))
        best = max(best, 100 * model.score(valid, labels(valid)))
    return best


if arguments.repetitions == 0:
    save_file({"best": np.array([sweep()], dtype=np.float32)}, arguments.best)
for _ in range(arguments.repetitions):
    start = time.perf_counter()
    sweep()
    print(time.perf_counter() - start, flush=True)
