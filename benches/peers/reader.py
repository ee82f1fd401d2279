"""Reading a GEO-Bench task to float32 arrays with the official loader, one thread, warm cache: the peer of benches/reader.rs. Prints two
numbers a line: of no repetition the count of samples and the sum of all pixels; else 0 and the samples per second of each pass.

    pip install geobench
    python benches/peers/reader.py --root FOLDER --task m-eurosat [--repetitions N]
"""

import argparse
import os
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ["--root", "--task"]:
    parser.add_argument(name, required=True)
parser.add_argument("--threads", help="one is used in any case")
parser.add_argument("--repetitions", type=int, default=5)
arguments = parser.parse_args()
os.environ["GEO_BENCH_DIR"] = arguments.root

try:
    import numpy as np
    from geobench.dataset import GeobenchDataset
    from geobench.task import load_task_specs
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

# Bands of one size, where a task has several.
CHOSEN = {"m-NeonTree": ["Red", "Green", "Blue"]}

kinds = [Path(arguments.root, f"{kind}_v1.0", arguments.task) for kind in ("classification", "segmentation")]
folder = next(kind for kind in kinds if kind.is_dir())
task = load_task_specs(folder)
bands = CHOSEN.get(arguments.task) or [band.name for band in task.bands_info]
splits = [
    GeobenchDataset(dataset_dir=folder, split=split, partition_name="default", band_names=bands)
    for split in ("train", "valid", "test")
]


def samples():
    for dataset in splits:
        for index in range(len(dataset)):
            sample = dataset[index]
            image, _ = sample.pack_to_3d(band_names=bands)
            image = np.ascontiguousarray(image, dtype=np.float32)
            assert image.shape[2] == len(bands)
            label = sample.label
            if hasattr(label, "data"):
                np.ascontiguousarray(label.data, dtype=np.int32)
            yield image


sums = [image.sum(dtype=np.float64) for image in samples()]
if arguments.repetitions == 0:
    print(len(sums), repr(float(sum(sums))))
for _ in range(arguments.repetitions):
    start = time.perf_counter()
    for _ in samples():
        pass
    print(0, len(sums) / (time.perf_counter() - start), flush=True)
