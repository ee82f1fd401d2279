"""Copernicus-FM as its authors evaluate it, for `cargo xtask parity`
[zhu-xlab/Copernicus-FM, Copernicus-Bench/src/foundation_models/CopernicusFM].

    cargo xtask parity --model copernicus-fm-b --weights CopernicusFM_ViT_base_varlang_e100.pth \
        --against "python examples/parity/encode_copernicus_fm.py --repository Copernicus-FM --weights CopernicusFM_ViT_base_varlang_e100.pth"
"""

import argparse
import collections
import sys

import numpy as np
import torch
import torchvision
import wire

parser = argparse.ArgumentParser()
parser.add_argument("--repository", required=True, help="a checkout of zhu-xlab/Copernicus-FM")
parser.add_argument("--weights", required=True, help="CopernicusFM_ViT_base_varlang_e100.pth")
parser.add_argument("--area", type=float, default=float("nan"), help="square kilometres of a patch [default: unknown]")
args = parser.parse_args()
sys.path[:0] = [f"{args.repository}/Copernicus-Bench/src", f"{args.repository}/Copernicus-Bench/src/foundation_models"]
# Images of bands need no vectors of names, which the constructor fetches and reads.
torchvision.datasets.utils.download_url = lambda *_, **__: None
vectors = collections.defaultdict(lambda: torch.zeros(2048))
load = torch.load
torch.load = lambda file, *a, **k: vectors if "embed" in str(file) else load(file, *a, **{"map_location": "cpu", **k})
from CopernicusFM.models_dwv import vit_base_patch16  # noqa: E402

# As the authors' configurations have them, in nanometres.
S2 = {
    name: (wavelength, bandwidth)
    for name, wavelength, bandwidth in zip(
        "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12".split(),
        [440, 490, 560, 665, 705, 740, 783, 842, 860, 940, 1370, 1610, 2190],
        [20, 65, 35, 30, 15, 15, 20, 115, 20, 20, 30, 90, 180],
    )
}
S1 = {"VV": (5e7, 1e9), "VH": (5e7, 1e9)}
PATCH = 16

model = vit_base_patch16(num_classes=0).eval()
state = torch.load(args.weights, weights_only=True)
report = model.load_state_dict(state.get("model", state), strict=False)
if set(report.missing_keys) - {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}:
    sys.exit(f"{args.weights} lacks {report.missing_keys}")


@torch.inference_mode()
def encode(image, pixels, _, context):
    known = S1 if image["sensor"] == "s1" else S2
    bands = [known[band["name"]] for band in image["bands"]]
    n = len(pixels)
    places = context.get("places", np.full((n, 2), np.nan, dtype=np.float32))
    days = context.get("days", np.full(n, np.nan))
    meta = torch.tensor(np.column_stack([places, days, np.full(n, args.area)]), dtype=torch.float32)
    wavelengths, bandwidths = ([band[place] for band in bands] for place in (0, 1))
    _, features = model(torch.from_numpy(pixels), meta, "", wavelengths, bandwidths, None, "spectral", PATCH)
    return features


wire.serve(encode, wire.identity(args.weights))
