"""Reading a Copernicus-Bench task of Sentinel-3 or Sentinel-5P with the benchmark's own classes, one thread, warm cache: a peer of
benches/reader.rs. Prints two numbers a line: of no repetition the count of samples and the sum of all pixels; else 0 and the samples
per second of each pass.

    pip install torch torchgeo rasterio opencv-python-headless kornia pyproj pandas
    TERRABENCH_ORIGINALS=FOLDER python benches/peers/copernicus.py --root FOLDER --task cloud-s3 [--repetitions N]

The folder of originals has a checkout of zhu-xlab/Copernicus-FM.
"""

import argparse
import importlib.util
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

# The file of a task's class, the class, the folder of its files, further arguments.
TASKS = {
    "cloud-s3": ("clouds3", "CoBenchCloudS3", "cloud_s3", {}),
    "lc100cls-s3": ("lc100clss3", "CoBenchLC100ClsS3", "lc100_s3", {}),
    "lc100seg-s3": ("lc100segs3", "CoBenchLC100SegS3", "lc100_s3", {}),
    "biomass-s3": ("biomasss3", "CoBenchBiomassS3", "biomass_s3", {}),
    "aq-no2-s5p": ("airqualitys5p", "CoBenchAirQualityS5P", "airquality_s5p", {"modality": "no2"}),
    "aq-o3-s5p": ("airqualitys5p", "CoBenchAirQualityS5P", "airquality_s5p", {"modality": "o3"}),
}
file, kind, folder, further = TASKS[arguments.task]
path = Path(os.environ.get("TERRABENCH_ORIGINALS", "/nowhere"), "Copernicus-FM/Copernicus-Bench/src/datasets")
path /= f"cobench_{file}_wrapper.py"
if not path.is_file():
    print(f"no file {path} (set TERRABENCH_ORIGINALS)", file=sys.stderr)
    sys.exit(3)
try:
    import cv2
    import torch

    spec = importlib.util.spec_from_file_location("original", path)
    original = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(original)
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
if arguments.task == "cloud-s3":
    # The class writes 256 into bytes, which numpy 2 refuses. This reads the mask and leaves out what the class does with it.
    def mask_alone(self, index):
        with original.rasterio.open(os.path.join(self.label_dir, self.fnames[index])) as source:
            return source.read(1)

    original.CoBenchCloudS3._load_target = mask_alone
torch.set_num_threads(1)
cv2.setNumThreads(1)

splits = [
    getattr(original, kind)(root=os.path.join(arguments.root, folder), split=split, **further)
    for split in ("train", "val", "test")
]


def samples():
    for dataset in splits:
        for index in range(len(dataset)):
            yield dataset[index]["image"]


if arguments.repetitions == 0:
    sums = [float(image.double().sum()) for image in samples()]
    print(len(sums), repr(sum(sums)))
for _ in range(arguments.repetitions):
    start = time.perf_counter()
    count = sum(1 for _ in samples())
    print(0, count / (time.perf_counter() - start), flush=True)
