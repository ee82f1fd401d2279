"""Reading GEO-Bench-2 samples with the benchmark's own classes, normalised as they do it by default, one thread, warm cache: the
small sets of three tasks, as far as they are there.

    pip install geobenchv2
    TERRABENCH_REAL=<folder of real datasets> TERRABENCH_MADE=<folder of made-up sets> python benches/peers/geobench2.py
"""

import os
import time
import warnings
from pathlib import Path

import torch
from geobench_v2.datasets import GeoBenchBENV2, GeoBenchBioMassters, GeoBenchCloudSen12

shared = Path(__file__).resolve().parents[2] / "../shared"
real = Path(os.environ.get("TERRABENCH_REAL") or shared / "real") / "geobench2"
made = Path(os.environ.get("TERRABENCH_MADE") or shared / "made") / "geobench2"
TEN = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
TWELVE = ["B01", *TEN[:8], "B09", *TEN[8:]]
TASKS = [
    (real / "benv2", GeoBenchBENV2, {"s2": TWELVE}),
    # Its rule for blank pixels needs Sentinel-1, also where a model takes Sentinel-2 alone.
    (real / "biomassters", GeoBenchBioMassters, {"s1": ["VV_asc", "VH_asc", "VV_desc", "VH_desc"], "s2": TEN}),
    (made / "cloudsen12", GeoBenchCloudSen12, TWELVE),
]

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
for folder, reader, bands in TASKS:
    if not folder.is_dir():
        print(f"skipped: no {folder}")
        continue
    splits = [reader(root=folder, split=split, band_order=bands) for split in ("train", "validation", "test")]

    def read():
        return sum(1 for split in splits for index in range(len(split)) if split[index])

    count = read()
    rates = []
    for _ in range(10):
        start = time.perf_counter()
        read()
        rates.append(count / (time.perf_counter() - start))
    print(
        f"{folder.name}: the benchmark's own class: {max(rates):.0f} samples/s (1 thread, best of {len(rates)} passes over {count} samples)"
    )
