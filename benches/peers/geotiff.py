"""Reading EuroSAT-S2 tiles from GeoTIFF as Copernicus-Bench does: rasterio, the bands in the model's order, float32, and the
tile's longitude and latitude [zhu-xlab/Copernicus-FM, cobench_eurosats2_wrapper.py, _load_image]. One thread, warm. Prints
tiles/s with the pixels only, and with the place: a line a pass.

    python geotiff.py FOLDER [PASSES]    (the folder eurosat_s2; needs rasterio and pyproj)
"""

import sys
import time
from pathlib import Path

import rasterio
from pyproj import Transformer

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


paths = sorted(Path(sys.argv[1]).glob("all_imgs/*/*.tif"))
rate(all_of_it, paths[:50])
for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 5):
    print(rate(pixels, paths), rate(all_of_it, paths))
