"""Images as Galileo's evaluation hands them to a model: [n, height, width, bands], Sentinel-2 in thirteen slots."""

import torch

# Libraries of the repository's data sets, which no model needs.
UNUSED = "breizhcrops satlaspretrain_models shapely cropharvest dateutil ee geobench geopandas google h5py pandas psutil rasterio requests rioxarray sklearn tqdm xarray".split()

S2 = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12".split()
S1 = "VV VH".split()


def fill(image, pixels):
    """The arguments of a model's forward. Slots of bands that the images lack are zeros: the model takes others."""
    name, slots = ("s1", S1) if image["sensor"] == "s1" else ("s2", S2)
    n, _, height, width = pixels.shape
    values = torch.zeros(n, height, width, len(slots))
    for channel, band in enumerate(image["bands"]):
        values[..., slots.index(band["name"])] = torch.from_numpy(pixels[:, channel].copy())
    return {name: values}
