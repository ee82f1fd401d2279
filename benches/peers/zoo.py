"""How many images a second the original code of a model encodes in eager PyTorch on the CPU.

Written for benches/zoo.rs, whose header says where the originals come from; nothing of them is copied here. Weights (by the
names of the official checkpoints) and images [batch, band, row, column] come from safetensors files, so that both sides
compute with the same numbers. Writes the features of one batch, then prints images/s, one repetition a line.
Exits with code 3 and a word on standard error where the original is not there.
"""

import argparse
import collections
import contextlib
import copy
import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import tempfile
import time
import types
from pathlib import Path
from unittest import mock

try:
    import torch
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"{error}", file=sys.stderr)
    sys.exit(3)

SLOTS = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12".split()


class NoOriginal(Exception):
    """The original cannot be imported."""


# Packages that read data, which the encoders import and never use.
UNUSED = set(
    "cropharvest dateutil ee geopandas google h5py matplotlib pandas psutil rasterio requests rioxarray shapely skimage "
    "sklearn tqdm xarray".split()
)


def stand_in(name):
    """An empty package, of which everything can be imported."""
    empty = types.ModuleType(name)
    empty.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    empty.__path__ = []
    empty.__getattr__ = lambda _: mock.MagicMock()
    return empty


def with_stand_ins(name):
    """Imports a module; packages of UNUSED that are missing are replaced by empty ones."""
    while True:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing.split(".")[0] not in UNUSED or missing in sys.modules:
                raise
            sys.modules[missing] = stand_in(missing)


def checkout(name):
    """The folder of a repository below TERRABENCH_ORIGINALS."""
    root = os.environ.get("TERRABENCH_ORIGINALS")
    if not root:
        raise NoOriginal(f"TERRABENCH_ORIGINALS names no folder with a checkout of {name}")
    folder = Path(root) / name
    if not folder.is_dir():
        raise NoOriginal(f"no folder {folder}")
    return folder


def imported(name, *paths):
    """A module found below `paths`."""
    sys.path[:0] = [str(path) for path in paths]
    try:
        return with_stand_ins(name)
    except ImportError as error:
        raise NoOriginal(f"{name}: {error}") from error


def module(name):
    """A file of Galileo's baseline_models, loaded alone: its package imports every model."""
    root = checkout("galileo")
    folder = root / "src" / "eval" / "baseline_models"
    path = folder / f"{name}.py"
    if not path.is_file():
        raise NoOriginal(f"no file {path}")
    if "/" in name:
        # The package without its own `__init__`, which imports what evaluation needs.
        package, _ = name.split("/")
        bare = types.ModuleType(package)
        bare.__path__ = [str(folder / package)]
        sys.modules[package] = bare
        return imported(name.replace("/", "."), root, folder)
    sys.path[:0] = [str(root), str(folder)]
    try:
        spec = importlib.util.spec_from_file_location(f"original_{name}", path)
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        spec.loader.exec_module(loaded)
        return loaded
    except ImportError as error:
        raise NoOriginal(f"{name}: {error}") from error


def load(model, weights):
    """Loads weights that the model knows; whatever they lack (other sensors, heads, fixed tables) stays as it is."""
    unknown = model.load_state_dict(weights, strict=False).unexpected_keys
    assert not unknown, unknown
    return model


def saved(folder, name, value):
    torch.save(value, folder / name)
    return folder


def dofa(size):
    def build(weights, folder):
        return module("dofa").DOFAWrapper(saved(folder, f"DOFA_ViT_{size}_e100.pth", weights), size)

    return build


def satmae(size):
    def build(weights, folder):
        saved(folder, "satmae.pth", {"model": weights})
        return module("satmae").SatMAEWrapper(folder / "satmae.pth", size)

    return build


def croma(size):
    def build(weights, folder):
        parts = {}
        for name, value in weights.items():
            part, rest = name.split(".", 1)
            parts.setdefault(part, {})[rest] = value
        return module("croma").CROMAWrapper(saved(folder, f"CROMA_{size}.pt", parts), size)

    return build


def decur(weights, folder):
    return module("decur").DeCurWrapper(saved(folder, "vits16_ssl4eo-s12_ms_decur_ep100.pth", weights), "optical")


def softcon(size):
    def build(weights, folder):
        width = weights["cls_token"].shape[-1]
        whole = {"mask_token": torch.zeros(1, width), **weights}
        file = f"B13_vit{size[0]}14_softcon.pth"
        return module("softcon").SoftConWrapper(saved(folder, file, whole), size, "optical")

    return build


def mmearth(weights, folder):
    saved(folder, "mmearth-atto-checkpoint-199.pth", {"model": weights})
    return module("mmearth").MMEarthWrapper(folder, "atto")


def prithvi(weights, folder):
    (folder / "prithvi").mkdir()
    saved(folder, "prithvi/Prithvi_EO_V2_300M.pt", weights)
    sizes = {"img_size": 224, "num_frames": 4, "patch_size": [1, 16, 16], "in_chans": 6, "embed_dim": 1024, "depth": 24}
    heads = {"num_heads": 16, "mlp_ratio": 4, "coords_encoding": [], "decoder_depth": 1}
    config = {**sizes, **heads, "bands": ["B02", "B03", "B04", "B05", "B06", "B07"]}
    (folder / "prithvi" / "config.json").write_text(json.dumps({"pretrained_cfg": config}))
    return module("prithvi").PrithviWrapper(folder)


def presto(weights, folder):
    wrapper = module("presto/wrapper").PrestoWrapper()
    load(wrapper.encoder, {name.removeprefix("encoder."): value for name, value in weights.items()})
    return wrapper


def anysat(weights, folder):
    wrapper = module("anysat/wrapper")
    original = wrapper.AnySat("base", flash_attn=False)
    whole = load(original.model, weights).state_dict()
    with mock.patch("torch.hub.load_state_dict_from_url", lambda *_, **__: {"state_dict": whole}):
        return wrapper.AnySatWrapper()


def galileo(heads):
    def build(weights, folder):
        original = imported("src.galileo", checkout("galileo"))
        depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        sizes = {"embedding_size": len(weights["norm.weight"]), "depth": depth, "num_heads": heads}
        encoder = {**sizes, "mlp_ratio": 4, "max_sequence_length": 24, "max_patch_size": 8}
        (folder / "config.json").write_text(json.dumps({"model": {"encoder": encoder}}))
        saved(folder, "encoder.pt", load(original.Encoder(**encoder), weights).state_dict())
        return original.GalileoWrapper(folder, patch_size=4)

    return build


def satlas(size, file):
    def build(weights, folder):
        # Also the final norm, the head and fixed tables, which the file must hold.
        satlas = imported("satlaspretrain_models")
        arch = satlas.Backbone[{"tiny": "SWINT", "base": "SWINB"}[size]]
        whole = load(satlas.Model(num_channels=9, backbone=arch).backbone, weights).state_dict()
        return module("satlas").SatlasWrapper(saved(folder, file, whole), size)

    return build


def terrafm(size):
    def build(weights, folder):
        original = imported("terrafm", checkout("TerraFM"))
        return load(getattr(original, f"terrafm_{size}")(), weights)

    return build


def copernicus_bench(name):
    """A module of Copernicus-Bench's foundation models."""
    source = checkout("Copernicus-FM") / "Copernicus-Bench" / "src"
    return imported(name, source, source / "foundation_models")


def vit(weights, folder):
    bands = weights["patch_embed.proj.weight"].shape[1]
    model = copernicus_bench("ViT.vit").vit_base(img_size=224, patch_size=16, in_chans=bands)
    return load(model, renamed(weights))


def renamed(weights):
    """The norm after the mean has a name of its own in Copernicus-Bench."""
    names = {"norm.weight": "fc_norm.weight", "norm.bias": "fc_norm.bias"}
    return {names.get(name, name): value for name, value in weights.items()}


def copernicus_fm(weights, folder):
    # The norm after the mean is not in the official checkpoint: it stays as it is made, and the norm of the class token is not used.
    weights = {name: value for name, value in weights.items() if not name.startswith("norm.")}
    # Images of bands need no vectors of variables' names, which the constructor fetches and reads.
    vectors = collections.defaultdict(lambda: torch.zeros(2048))
    with mock.patch("torchvision.datasets.utils.download_url"), mock.patch("torch.load", lambda *_, **__: vectors):
        return load(copernicus_bench("CopernicusFM.models_dwv").vit_base_patch16(), weights)


# Wavelengths and bandwidths in nanometres, as Copernicus-Bench's configurations have them.
SPECTRA = dict(
    zip(
        SLOTS,
        zip(
            [440, 490, 560, 665, 705, 740, 783, 842, 860, 940, 1370, 1610, 2190],
            [20, 65, 35, 30, 15, 15, 20, 115, 20, 20, 30, 90, 180],
        ),
    )
)


def in_slots(images, bands):
    """Arguments of the wrappers of Galileo's evaluation: [batch, row, column, 13 bands]; bands not given are zeros."""
    slots = torch.zeros(images.shape[0], len(SLOTS), *images.shape[2:])
    for channel, band in enumerate(bands):
        slots[:, SLOTS.index(band)] = images[:, channel]
    return [], {"s2": slots.permute(0, 2, 3, 1).contiguous()}


def plain(images, bands):
    return [images], {}


def with_spectra(images, bands):
    """Without place, date and area, as GEO-Bench gives none."""
    unknown = torch.full((len(images), 4), float("nan"))
    wavelengths, bandwidths = zip(*(SPECTRA[band] for band in bands))
    return [images, unknown, "", wavelengths, bandwidths, None, "spectral", 16], {}


# How each model is built from weights, and how it is given images.
MODELS = {
    "anysat-base": (anysat, in_slots),
    "copernicus-fm-b": (copernicus_fm, with_spectra),
    "croma-b": (croma("base"), in_slots),
    "croma-l": (croma("large"), in_slots),
    "decur-s-s2": (decur, in_slots),
    "dofa-b": (dofa("base"), in_slots),
    "dofa-l": (dofa("large"), in_slots),
    "galileo-base": (galileo(12), in_slots),
    "galileo-nano": (galileo(8), in_slots),
    "galileo-tiny": (galileo(3), in_slots),
    "mmearth-atto": (mmearth, in_slots),
    "presto": (presto, in_slots),
    "prithvi2-300m": (prithvi, in_slots),
    "satlas-swin-b": (satlas("base", "satlas-model-v1-lowres-band.pth"), in_slots),
    "satlas-swin-t": (satlas("tiny", "sentinel2_swint_si_ms.pth"), in_slots),
    "satmae-b": (satmae("base"), in_slots),
    "satmae-l": (satmae("large"), in_slots),
    "satmaepp-l": (satmae("large"), in_slots),
    "softcon-b-s2": (softcon("base"), in_slots),
    "softcon-s-s2": (softcon("small"), in_slots),
    "terrafm-b": (terrafm("base"), plain),
    "terrafm-l": (terrafm("large"), plain),
    "vit-b": (vit, plain),
}


def main():
    parser = argparse.ArgumentParser()
    for name in ["--model", "--weights", "--images", "--bands", "--features"]:
        parser.add_argument(name, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.model not in MODELS:
        raise NoOriginal(f"benches/peers/zoo.py knows no original of {arguments.model}")
    build, given = MODELS[arguments.model]
    # Originals print what they load; standard output is for the rates.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        model = build(load_file(arguments.weights), Path(folder)).eval()
    images = load_file(arguments.images)["images"]
    assert len(images) == arguments.batch
    positional, named = given(images, arguments.bands.split(","))

    def as_it_is():
        return model(*positional, **named)

    def autocast():
        with torch.autocast("cpu", torch.bfloat16):
            return as_it_is()

    def narrowed():
        return narrow_model(*narrow(positional), **narrow(named))

    ways = [as_it_is]
    if arguments.precision == "bf16":
        ways = [autocast, narrowed]
        narrow_model = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        features = ways[0]()
        # Some give logits, then features.
        features = features[1] if isinstance(features, tuple) else features
        save_file({"features": features.float().contiguous()}, arguments.features)
        for _ in range(arguments.repetitions):
            print(*(rate(way, arguments.batch) for way in ways), flush=True)


def narrow(values):
    """Tensors of float32, and those in lists and dictionaries, as bfloat16."""
    if isinstance(values, torch.Tensor):
        return values.bfloat16() if values.dtype == torch.float32 else values
    if isinstance(values, dict):
        return {name: narrow(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(narrow(value) for value in values)
    return values


def rate(way, batch):
    """Images per second, or 0 where the original cannot compute in this way."""
    start = time.perf_counter()
    try:
        way()
    except (RuntimeError, TypeError) as error:
        print(f"{way.__name__}: {error}", file=sys.stderr)
        return 0.0
    return batch / (time.perf_counter() - start)


if __name__ == "__main__":
    try:
        main()
    except NoOriginal as error:
        print(f"{error}", file=sys.stderr)
        sys.exit(3)
