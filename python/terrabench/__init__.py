"""Measure your own Earth-observation model on GEO-Bench, Copernicus-Bench and Landslide4Sense.

    import terrabench
    results = terrabench.evaluate(model, suite="geobench", tasks=["m-eurosat"], protocols=["knn"], data="~/geobench")

`model` is a `torch.nn.Module` or any callable from a batch of images [n, c, h, w] to features [n, d]. The program
`terrabench` reads the data and scores the features; this package calls your model where you are.
"""

from ._batches import Batch, Batches, encode
from ._errors import Error
from ._evaluate import evaluate
from ._find import program
from ._records import Interval, Predictions, Record, Records, load
from ._serve import Band, Context, ImageInfo
from ._wrappers import timm, torchgeo

__version__ = "0.1.0"

__all__ = [
    "Band",
    "Batch",
    "Batches",
    "Context",
    "Error",
    "ImageInfo",
    "Interval",
    "Predictions",
    "Record",
    "Records",
    "encode",
    "evaluate",
    "load",
    "program",
    "timm",
    "torchgeo",
]
