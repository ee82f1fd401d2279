"""Measures a model of your own: `python examples/measure_a_model.py` runs on generated data in a minute, without torch.

With real data: data="~/geobench" instead of demo=True, and a model that you trained instead of `encode`.
"""

import numpy as np

import terrabench


def encode(images):
    """[n, 4, 64, 64] float32, normalised, to [n, 8]: mean and deviation of each band. Put your model here."""
    return np.concatenate([images.mean((2, 3)), images.std((2, 3))], axis=1)


results = terrabench.evaluate(
    encode,
    suite="geobench",
    tasks=["m-eurosat"],
    protocols=["knn", "linear-probe"],
    bands=["B02", "B03", "B04", "B08"],
    size=64,
    demo=True,
)
print(results)
predictions = results[0].predictions()
print(f"{predictions.samples[0]}: predicted {predictions.predicted[0]}, truth {predictions.truth[0]}")
