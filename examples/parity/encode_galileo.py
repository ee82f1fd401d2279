"""Galileo as its authors evaluate it, for `cargo xtask parity` [nasaharvest/galileo, src/galileo.py].

    cargo xtask parity --model galileo-nano --weights models/nano/encoder.pt \
        --against "python examples/parity/encode_galileo.py --repository galileo --weights models/nano"
"""

import argparse
import sys
from pathlib import Path

import slots
import torch
import wire

parser = argparse.ArgumentParser()
parser.add_argument("--repository", required=True, help="a checkout of nasaharvest/galileo")
parser.add_argument("--weights", required=True, help="the folder with config.json and encoder.pt")
parser.add_argument("--patch", type=int, default=4, help="patch size; 4 in the published tables")
args = parser.parse_args()
sys.path.insert(0, args.repository)
wire.stand_in(*slots.UNUSED)
from src.galileo import GalileoWrapper  # noqa: E402

model = GalileoWrapper(Path(args.weights), patch_size=args.patch).eval()


@torch.inference_mode()
def encode(image, pixels, want, _):
    model.do_pool = want == "pooled"
    features = model(**slots.fill(image, pixels))
    if want == "pooled":
        return features
    return features, (pixels.shape[2] // args.patch, pixels.shape[3] // args.patch)


wire.serve(encode, wire.identity(args.weights), wants=["pooled", "tokens"])
