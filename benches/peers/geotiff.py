"""Reading EuroSAT-S2 tiles from GeoTIFF as Copernicus-Bench does: rasterio, the bands in the model's order, float32, and the
tile's longitude and latitude [zhu-xlab/Copernicus-FM, cobench_eurosats2_wrapper.py, _load_image]. One thread, warm. Prints
two numbers a line: of no repetition the sum of all pixels of the listed train tiles and 0; else tiles/s with the pixels only, and with
the place.

    python geotiff.py --folder FOLDER [--repetitions N]    (the folder eurosat_s2; needs rasterio and pyproj)
"""

import argparse
import sys
import time
from pathlib import Path

try:
    import rasterio
    from pyproj import Transformer
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

BANDS = [1, 2, 3, 4, 5, 6, 7, 8, 13, 9, 10, 11, 12]  # B8A is stored last


def pixels(path):
    with rasterio.open(path) as tile:
        return tile.read(BANDS).astype("float32")


def all_of_it(path):
    with rasterio.open(path) as tile:
        image = tile.read(BANDS).astype("float32")
        x, y = tile.xy(tile.height // 2, tile.width // 2)
        if tile.crs.to_string() != "EPSG:4326":
            x, y = Transformer.from_crs(tile.crs, "epsg:4326", always_xy=True).transform(x, y)
    return image, x, y


def rate(read, paths):
    start = time.perf_counter()
    for path in paths:
        read(path)
    return len(paths) / (time.perf_counter() - start)


parser = argparse.ArgumentParser()
parser.add_argument("--folder", required=True)
parser.add_argument("--threads", help="one is used in any case")
parser.add_argument("--repetitions", type=int, default=5)
arguments = parser.parse_args()
folder = Path(arguments.folder)
names = [Path(line).stem for line in (folder / "eurosat-train.txt").read_text().split()]
paths = [folder / "all_imgs" / name.split("_")[0] / f"{name}.tif" for name in names]
rate(all_of_it, paths[:50])
if arguments.repetitions == 0:
    print(sum(float(pixels(path).sum(dtype="float64")) for path in paths), 0)
for _ in range(arguments.repetitions):
    print(rate(pixels, paths), rate(all_of_it, paths), flush=True)
