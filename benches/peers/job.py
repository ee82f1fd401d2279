"""A whole job of torchgeo-bench, as its program runs it: the peer of benches/job.rs, which gives the files. Prints a line per repetition:
the accuracy, 0 to 1, and the seconds of the whole process.

    python job.py --data FOLDER [--threads N] [--repetitions N]    (FOLDER has classification_v1.0; needs torchgeo_bench)
"""

import argparse
import csv
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--threads", default="2")
parser.add_argument("--repetitions", type=int, default=1)
arguments = parser.parse_args()
if importlib.util.find_spec("torchgeo_bench") is None:
    print("no module torchgeo_bench", file=sys.stderr)
    sys.exit(3)

environment = {
    **os.environ,
    "OMP_NUM_THREADS": arguments.threads,
    "GEOBENCH_V1_NO_HF_DOWNLOAD": "1",
    "GEOBENCH_V2_NO_DOWNLOAD": "1",
}
# Its own settings but for the device and the bands; its loaders share the cores with the model, as it has them.
overrides = ["model=rcf", "dataset.names=[m-eurosat]", "dataset.bands=all", "device=cpu", "eval.skip_linear=true"]
for _ in range(arguments.repetitions):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "data").symlink_to(Path(arguments.data).resolve())
        start = time.perf_counter()
        command = [sys.executable, "-m", "torchgeo_bench", *overrides, "output=results.csv"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        assert done.returncode == 0, done.stderr
        with open(Path(folder, "results.csv")) as rows:
            values = [float(row["metric_value"]) for row in csv.DictReader(rows) if row["method"].startswith("knn")]
        assert len(values) == 1, done.stderr
        print(values[0], seconds, flush=True)
