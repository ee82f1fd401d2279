"""Reading m-eurosat samples (13 bands, label) to float32 arrays with the official loader, one thread, warm cache.

    pip install geobench
    TERRABENCH_REAL=<folder of real datasets> python benches/peers/reader.py
"""

import os
import time

real = os.environ.get("TERRABENCH_REAL") or os.path.join(os.path.dirname(__file__), "../../../shared/real")
os.environ["GEO_BENCH_DIR"] = os.path.join(real, "geobench")

import numpy as np
from geobench.task import load_task_specs

task = load_task_specs(os.path.join(os.environ["GEO_BENCH_DIR"], "classification_v1.0", "m-eurosat"))
bands = [band.name for band in task.bands_info]
splits = [task.get_dataset(split=split, band_names=bands) for split in ("train", "valid", "test")]


def read():
    count = 0
    for dataset in splits:
        for index in range(len(dataset)):
            sample = dataset[index]
            image, _ = sample.pack_to_3d(band_names=bands)
            image = np.ascontiguousarray(image, dtype=np.float32)
            assert image.shape == (64, 64, 13) and 0 <= sample.label < 10
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
    f"official geobench loader: {max(wall):.0f} samples/s, {max(processor):.0f} samples per second of processor time "
    f"(1 thread, best of {len(wall)} passes over {count} samples)"
)
