"""How many images a second the original code of a model encodes in eager PyTorch on the CPU.

Written for benches/zoo.rs. The originals are the wrappers of Galileo's evaluation (github.com/nasaharvest/galileo,
src/eval/baseline_models), imported from the checkout that TERRABENCH_ORIGINAL names; nothing of them is copied here. Weights
(by the names of the official checkpoints) and images [batch, band, row, column] come from safetensors files, so that both
sides compute with the same numbers. Writes the features of one batch, then prints images/s, one repetition a line.
Exits with code 3 and a word on standard error where the original is not there.
"""

import argparse
import contextlib
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
UNUSED = set("cropharvest dateutil ee geopandas google h5py matplotlib pandas requests rioxarray shapely skimage sklearn tqdm xarray".split())


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


def module(name):
    """A file of baseline_models, loaded alone: its package imports every model."""
    root = os.environ.get("TERRABENCH_ORIGINAL")
    if not root:
        raise NoOriginal("TERRABENCH_ORIGINAL names no checkout of nasaharvest/galileo")
    folder = Path(root) / "src" / "eval" / "baseline_models"
    path = folder / f"{name}.py"
    if not path.is_file():
        raise NoOriginal(f"no file {path}")
    sys.path[:0] = [root, str(folder)]
    try:
        if "/" in name:
            # The package without its own `__init__`, which imports what evaluation needs.
            package, _ = name.split("/")
            bare = types.ModuleType(package)
            bare.__path__ = [str(folder / package)]
            sys.modules[package] = bare
            return with_stand_ins(name.replace("/", "."))
        spec = importlib.util.spec_from_file_location(f"original_{name}", path)
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        spec.loader.exec_module(loaded)
        return loaded
    except ImportError as error:
        raise NoOriginal(f"{name}: {error}") from error


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
    own = {name.removeprefix("encoder."): value for name, value in weights.items()}
    unknown = wrapper.encoder.load_state_dict(own, strict=False).unexpected_keys
    assert not unknown, unknown
    return wrapper


MODELS = {
    "dofa-b": dofa("base"),
    "dofa-l": dofa("large"),
    "satmae-b": satmae("base"),
    "satmae-l": satmae("large"),
    "satmaepp-l": satmae("large"),
    "croma-b": croma("base"),
    "croma-l": croma("large"),
    "decur-s-s2": decur,
    "softcon-s-s2": softcon("small"),
    "softcon-b-s2": softcon("base"),
    "mmearth-atto": mmearth,
    "presto": presto,
    "prithvi2-300m": prithvi,
}


def main():
    parser = argparse.ArgumentParser()
    for name in ["--model", "--weights", "--images", "--bands", "--features"]:
        parser.add_argument(name, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.model not in MODELS:
        raise NoOriginal(f"benches/peers/zoo.py knows no original of {arguments.model}")
    # Originals print what they load; standard output is for the rates.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        model = MODELS[arguments.model](load_file(arguments.weights), Path(folder)).eval()
    given = load_file(arguments.images)["images"]
    images = torch.zeros(given.shape[0], 13, *given.shape[2:])
    for channel, band in enumerate(arguments.bands.split(",")):
        images[:, SLOTS.index(band)] = given[:, channel]
    images = images.permute(0, 2, 3, 1).contiguous()
    assert len(images) == arguments.batch
    with torch.no_grad():
        for repetition in range(-1, arguments.repetitions):
            start = time.perf_counter()
            features = model(s2=images)
            seconds = time.perf_counter() - start
            if repetition < 0:
                save_file({"features": features.float().contiguous()}, arguments.features)
            else:
                print(f"{arguments.batch / seconds:.3f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except NoOriginal as error:
        print(f"{error}", file=sys.stderr)
        sys.exit(3)
