"""Reading GEO-Bench samples to float32 arrays with the official loader, one thread, warm cache: m-eurosat (13 bands, label), and
the small sets of the tasks of Landsat and aerial images, as far as they are there.

    pip install geobench
    TERRABENCH_REAL=<folder of real datasets> TERRABENCH_MADE=<folder of made-up sets> python benches/peers/reader.py
"""

import os
import time
from pathlib import Path

shared = os.path.join(os.path.dirname(__file__), "../../../shared")
real = os.environ.get("TERRABENCH_REAL") or os.path.join(shared, "real")
made = os.environ.get("TERRABENCH_MADE") or os.path.join(shared, "made")
os.environ["GEO_BENCH_DIR"] = os.path.join(real, "geobench")

import numpy as np
from geobench.dataset import GeobenchDataset
from geobench.task import load_task_specs

RGB = ["Red", "Green", "Blue"]
TASKS = [
    (real, "geobench", "classification_v1.0", "m-eurosat", None),
    (made, "geobench-more", "classification_v1.0", "m-forestnet", None),
    (made, "geobench-more", "classification_v1.0", "m-pv4ger", None),
    (made, "geobench-more", "segmentation_v1.0", "m-pv4ger-seg", None),
    (made, "geobench-more", "segmentation_v1.0", "m-chesapeake", None),
    (made, "geobench-more", "segmentation_v1.0", "m-NeonTree", RGB),
    (real, "geobench-more", "segmentation_v1.0", "m-nz-cattle", None),
]


def measure(folder, chosen):
    task = load_task_specs(folder)
    bands = chosen or [band.name for band in task.bands_info]
    splits = [
        GeobenchDataset(dataset_dir=Path(folder), split=split, partition_name="default", band_names=bands)
        for split in ("train", "valid", "test")
    ]

    def read():
        count = 0
        for dataset in splits:
            for index in range(len(dataset)):
                sample = dataset[index]
                image, _ = sample.pack_to_3d(band_names=bands)
                image = np.ascontiguousarray(image, dtype=np.float32)
                assert image.shape[2] == len(bands)
                label = sample.label
                if hasattr(label, "data"):
                    np.ascontiguousarray(label.data, dtype=np.int32)
                count += 1
        return count

    read()
    wall, processor = [], []
    for _ in range(10):
        start, start_processor = time.perf_counter(), time.process_time()
        count = read()
        wall.append(count / (time.perf_counter() - start))
        processor.append(count / (time.process_time() - start_processor))
    print(
        f"{os.path.basename(folder)}: official geobench loader: {max(wall):.0f} samples/s, {max(processor):.0f} samples per second "
        f"of processor time (1 thread, best of {len(wall)} passes over {count} samples)"
    )


for root, set_, benchmark, name, chosen in TASKS:
    folder = os.path.join(root, set_, benchmark, name)
    if os.path.isdir(folder):
        measure(folder, chosen)
    else:
        print(f"skipped: no {folder}")
