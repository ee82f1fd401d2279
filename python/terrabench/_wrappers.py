"""Models of timm and torchgeo by name, ready for `evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ._arrays import is_installed
from ._errors import Error

_MAPS = 4
"""Number of maps that the program's protocols take."""

RGB = ("B04", "B03", "B02")
"""Sentinel-2's red, green and blue."""


def timm(name: str, *, bands: Sequence[str] = RGB, pretrained: bool = True, layers: Any = None, **options: Any) -> Any:
    """Returns a model of timm that gives pooled features, tokens and maps.

    The pooled feature is what timm's own classifier would get. Images are resized to the model's size and, unless
    `evaluate` is told otherwise, standardised with the data set's mean and deviation per band.

    Args:
        name: name of the model in timm: `resnet50`, `vit_base_patch16_224.dino`.
        bands: the bands of the images. timm adapts the first layer of pre-trained weights to their number.
        pretrained: whether to load timm's weights.
        layers: the four blocks or stages whose outputs are the maps, by index [default: the last four stages of a
            network with stages; four blocks, evenly spread, of a ViT].
        **options: further arguments of `timm.create_model`.

    Raises:
        Error: if timm is not installed.
    """
    library = _needed("timm")
    network = library.create_model(name, pretrained=pretrained, num_classes=0, in_chans=len(bands), **options)
    size = network.pretrained_cfg.get("input_size", (3, 224, 224))[-1]
    size = options.get("img_size", size)
    defaults = {
        "bands": tuple(bands),
        "size": int(size),
        "name": name,
        "backbone": "timm, pretrained" if pretrained else "timm, untrained",
    }
    return _wrapped(network, defaults, layers)


def torchgeo(name: str, weights: Any = None, *, layers: Any = None, **options: Any) -> Any:
    """Returns a ResNet or ViT of torchgeo, as built by timm, that gives pooled features, tokens and maps.

    With weights, the model gets the bands that they were trained on, as stored, and applies their own transforms (size
    and normalisation). Without, it has random weights and three bands.

    Args:
        name: name of the model in torchgeo: `resnet50`, `vit_small_patch16_224`.
        weights: the weights or their name: `ResNet50_Weights.SENTINEL2_ALL_MOCO`.
        layers: as for `timm`.
        **options: further arguments of `torchgeo.models.get_model`.

    Raises:
        Error: if torchgeo is not installed, the weights are unknown or of another sensor than Sentinel-1 or 2, or the
            model is called in another way than timm's.
    """
    models = _needed("torchgeo.models", "torchgeo")
    if isinstance(weights, str):
        try:
            weights = models.get_weight(weights)
        except ValueError as problem:
            known = _weights_of(models, name)
            raise Error(f"{problem}\n  help: torchgeo's weights of {name} are {known}") from None
    defaults: dict[str, Any] = {"name": name, "backbone": f"torchgeo, {weights.name if weights else 'untrained'}"}
    transform = None
    if weights is None:
        options.setdefault("in_chans", len(RGB))
        defaults["bands"], defaults["size"] = RGB, 224
    else:
        defaults["bands"] = _bands(weights.meta.get("bands", ()), weights)
        defaults["pixels"] = "stored"
        # Band 10 is missing from surface reflectance and from some data sets' files.
        defaults["impute"] = [("zeros", "B10")] if "B10" in defaults["bands"] else None
        transform = weights.transforms
    try:
        network = models.get_model(name, weights=weights, **options)
    except KeyError:
        raise Error(f"torchgeo has no model {name!r}\n  help: it has {', '.join(models.list_models())}") from None
    except TypeError as problem:
        if "in_chans" not in str(problem):
            raise
        network = None
    if not hasattr(network, "pretrained_cfg"):
        raise Error(
            f"torchgeo's {name} is not built by timm and is called in its own way\n"
            "  help: write a function that calls it, and pass that to evaluate, with context=True for wavelengths"
        )
    if hasattr(network, "reset_classifier"):
        network.reset_classifier(0)
    return _wrapped(network, defaults, layers, transform)


def _needed(module: str, package: str | None = None) -> Any:
    package = package or module
    if not is_installed(package):
        raise Error(f"{package} is not installed\n  help: pip install {package}")
    import importlib

    return importlib.import_module(module)


def _weights_of(models: Any, name: str) -> str:
    try:
        return ", ".join(str(weight) for weight in models.get_model_weights(name)) or "none"
    except KeyError:
        return "none"


def _bands(names: Iterable[str], weights: Any) -> tuple[str, ...]:
    """Converts torchgeo's names of bands: `B1` and `B8a` to `B01` and `B8A`.

    Raises:
        Error: if they are not of Sentinel-1 or 2.
    """
    known = {"VV", "VH", "B8A", *(f"B{number:02}" for number in range(1, 13))}
    found = []
    for name in map(str, names):
        band = name.upper()
        if band[:1] == "B" and band[1:].isdigit():
            band = f"B{int(band[1:]):02}"
        found.append(band)
    sensor = str(weights).rsplit(".", 1)[-1].lower()
    if not found or not set(found) <= known or "landsat" in sensor:
        raise Error(
            f"{weights}: expected weights for bands of Sentinel-1 or Sentinel-2, found {', '.join(map(str, names))}\n"
            "  help: choose weights whose names contain SENTINEL1 or SENTINEL2"
        )
    return tuple(found)


def _wrapped(network: Any, defaults: dict[str, Any], layers: Any, transform: Any = None) -> Any:
    import torch

    class Wrapped(torch.nn.Module):
        """A network of timm with features of each kind."""

        terrabench_defaults = {**defaults, "context": True}

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.transform = transform

        def extra_repr(self) -> str:
            """What tells two models apart besides their networks."""
            return f"layers={layers}"

        def forward(self, images: Any, context: Any) -> dict[str, Any]:
            """Returns what is wanted of images [n, c, h, w]."""
            if self.transform is not None:
                images = self.transform(images)
            return _features(self.network, images, context.want, layers)

    return Wrapped()


def _features(network: Any, images: Any, want: str, layers: Any) -> dict[str, Any]:
    """Returns pooled features, tokens or maps of a network of timm."""
    if want == "maps":
        if layers is None and hasattr(network, "blocks") and not hasattr(network, "stages"):
            depth = len(network.blocks)
            layers = [max(depth * (quarter + 1) // _MAPS - 1, 0) for quarter in range(_MAPS)]
        elif layers is None:
            layers = _MAPS
        maps = network.forward_intermediates(images, indices=layers, output_fmt="NCHW", intermediates_only=True)
        return {"maps": maps, "strides": [images.shape[-1] // one.shape[-1] for one in maps]}
    found = network.forward_features(images)
    if want == "pooled":
        return {"pooled": network.forward_head(found, pre_logits=True)}
    if found.ndim == 4:
        # Networks with stages: maps [n, d, rows, columns], or [n, rows, columns, d] for those such as Swin.
        if getattr(network, "output_fmt", "NCHW") == "NHWC":
            found = found.permute(0, 3, 1, 2)
        return {"tokens": found.flatten(2).transpose(1, 2), "grid": tuple(found.shape[-2:])}
    prefix = getattr(network, "num_prefix_tokens", 0)
    return {"tokens": found[:, prefix:], "grid": _grid(network, found.shape[1] - prefix)}


def _grid(network: Any, tokens: int) -> tuple[int, int] | None:
    size = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    return tuple(size) if size is not None and size[0] * size[1] == tokens else None
