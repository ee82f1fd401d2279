"""Reading a GEO-Bench-2 task with the benchmark's own class, normalised as it does by default, one thread, warm cache: the peer of
benches/reader.rs. Prints two numbers a line: of no repetition the count of samples and 0; else 0 and the samples per second of each
pass.

    pip install geobenchv2
    python benches/peers/geobench2.py --root FOLDER --task biomassters [--repetitions N]
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ["--root", "--task"]:
    parser.add_argument(name, required=True)
parser.add_argument("--threads", help="one is used in any case")
parser.add_argument("--repetitions", type=int, default=5)
arguments = parser.parse_args()

try:
    import torch
    from geobench_v2.datasets import GeoBenchBENV2, GeoBenchBioMassters, GeoBenchCloudSen12
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

TEN = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
TWELVE = ["B01", *TEN[:8], "B09", *TEN[8:]]
TASKS = {
    "benv2": (GeoBenchBENV2, {"s2": TWELVE}),
    # Its rule for blank pixels needs Sentinel-1, also where a model takes Sentinel-2 alone.
    "biomassters": (GeoBenchBioMassters, {"s1": ["VV_asc", "VH_asc", "VV_desc", "VH_desc"], "s2": TEN}),
    "cloudsen12": (GeoBenchCloudSen12, TWELVE),
}

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
# The classes say what they do on standard output, which is for the numbers.
numbers, sys.stdout = sys.stdout, sys.stderr
reader, bands = TASKS[arguments.task]
folder = Path(arguments.root, arguments.task)
splits = [reader(root=folder, split=split, band_order=bands) for split in ("train", "validation", "test")]


def read():
    return sum(1 for split in splits for index in range(len(split)) if split[index])


count = read()
if arguments.repetitions == 0:
    print(count, 0, file=numbers)
for _ in range(arguments.repetitions):
    start = time.perf_counter()
    read()
    print(0, count / (time.perf_counter() - start), file=numbers, flush=True)
