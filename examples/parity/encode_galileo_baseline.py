"""The models that Galileo's evaluation compares with, through its own wrappers, for `cargo xtask parity`
[nasaharvest/galileo, src/eval/baseline_models].

    cargo xtask parity --model croma-b --weights weights/CROMA_base.pt \
        --against "python examples/parity/encode_galileo_baseline.py --repository galileo --weights weights --model croma_base"
"""

import argparse
import inspect
import math
import sys
from pathlib import Path

import slots
import torch
import wire

parser = argparse.ArgumentParser()
parser.add_argument("--repository", required=True, help="a checkout of nasaharvest/galileo")
parser.add_argument("--weights", required=True, help="the folder with the official files, as the evaluation names them")
parser.add_argument("--model", required=True, help="as in the evaluation: croma_base, decur, dofa_base, mmearth_atto, presto, …")
parser.add_argument("--sensor", choices=["s1", "s2"], default="s2")
parser.add_argument("--file", help="the one file of the folder that the model reads, for its identity [default: all]")
args = parser.parse_args()
sys.path.insert(0, args.repository)
wire.stand_in(*slots.UNUSED)
from src.eval.baseline_models import get_model_config  # noqa: E402

# Their files were written by older versions of PyTorch and hold more than tensors.
torch.load = (lambda load: lambda *a, **k: load(*a, **{"map_location": "cpu", "weights_only": False, **k}))(torch.load)
# AnySat's loader fetches its file; here it is in the folder.
torch.hub.load_state_dict_from_url = lambda *_, **__: torch.load(Path(args.weights) / "AnySat.pth")
chosen = get_model_config(args.model, Path(args.weights), args.sensor)
model = chosen["model"](**chosen["args"]).eval()
per_pixel = args.model == "anysat"
months = "months" in inspect.signature(model.forward).parameters


def radar(s1):
    """What SoftCon's wrapper does, of Sentinel-1: it has a radar encoder but no route to it."""
    tokens = model.encoder.forward_features(model.resize(s1.movedim(-1, 1)))["x_norm_patchtokens"]
    return tokens.mean(dim=1) if model.do_pool else tokens


@torch.inference_mode()
def encode(image, pixels, want, _):
    model.do_pool = want == "pooled"
    if per_pixel:
        model.output = "tile" if want == "pooled" else "dense"
    if args.model.startswith("softcon") and args.sensor == "s1":
        features = radar(**slots.fill(image, pixels))
    else:
        features = model(**slots.fill(image, pixels), **({"months": None} if months else {}))
    if want == "pooled":
        return features
    side = math.isqrt(features.shape[1]) if per_pixel else model.grid_size
    return features, (side, side)


place = Path(args.weights) / args.file if args.file else Path(args.weights)
wants = ["pooled", "tokens"] if per_pixel or getattr(model, "grid_size", None) else ["pooled"]
wire.serve(encode, f"{args.model} {wire.identity(place)}", wants=wants)
