"""Reading EuroSAT-S2 tiles from GeoTIFF as Copernicus-Bench does: rasterio, the bands in the model's order, float32, and the
tile's longitude and latitude [zhu-xlab/Copernicus-FM, cobench_eurosats2_wrapper.py, _load_image]. Best of many passes, warm.

    python geotiff.py FOLDER    (the folder eurosat_s2; needs rasterio and pyproj)
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


paths = sorted(Path(sys.argv[1]).glob("all_imgs/*/*.tif"))
for name, read in [("pixels only", pixels), ("pixels and place", all_of_it)]:
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for path in paths:
            read(path)
        best = min(best, time.perf_counter() - start)
    print(f"rasterio, {name}: {len(paths) / best:.0f} tiles/s (1 thread, best of 20 passes over {len(paths)} tiles)")
