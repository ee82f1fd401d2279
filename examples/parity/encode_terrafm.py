"""TerraFM as its authors publish it, for `cargo xtask parity` [mbzuai-oryx/TerraFM, terrafm.py].

    cargo xtask parity --model terrafm-b --weights TerraFM-B.pth \
        --against "python examples/parity/encode_terrafm.py --repository TerraFM --weights TerraFM-B.pth"
"""

import argparse
import sys
from functools import partial

import torch
import wire

parser = argparse.ArgumentParser()
parser.add_argument("--repository", required=True, help="a checkout of mbzuai-oryx/TerraFM")
parser.add_argument("--weights", required=True, help="TerraFM-B.pth, TerraFM-L.pth")
parser.add_argument("--stem", choices=["l1c", "l2a"], help="stem of Sentinel-2 images [default: by the sensor]")
args = parser.parse_args()
sys.path.insert(0, args.repository)
import terrafm  # noqa: E402

state = torch.load(args.weights, map_location="cpu", weights_only=True)
width, patches = state["pos_embed"].shape[2], state["pos_embed"].shape[1] - 1
patch = state["patch_embed.conv2d_s1.weight"].shape[-1]
depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
# The authors give two sizes; smaller ones, of the demo and of tests, have heads of 64, or 16 where the width asks for it.
heads = width // 64 if width % 64 == 0 else width // 16
model = terrafm.TerraFM(
    img_size=[round(patches**0.5) * patch],
    patch_size=patch,
    embed_dim=width,
    depth=depth,
    num_heads=heads,
    mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width,
    qkv_bias=True,
    norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
).eval()
report = model.load_state_dict(state, strict=False)
if report.missing_keys:
    sys.exit(f"{args.weights} lacks {report.missing_keys}")
# The published forward passes no sensor, so it always takes the L1C stem; here it takes the one of the images.
forward = model.patch_embed.forward
layers = (3, 5, 7, 11) if depth > 11 else tuple(range(depth))


@torch.inference_mode()
def encode(image, pixels, want, _):
    is_l2a = args.stem == "l2a" if args.stem else image["sensor"] == "s2-l2a"
    model.patch_embed.forward = partial(forward, is_l2a=is_l2a)
    pixels = torch.from_numpy(pixels)
    if want == "pooled":
        return model(pixels)
    if want == "tokens":
        tokens = model.norm(model.get_intermediate_layers(pixels, n=1)[0])
        return tokens, (pixels.shape[2] // patch, pixels.shape[3] // patch)
    return [(values, patch) for values in model.extract_feature(pixels, out_indices=layers)]


wire.serve(encode, wire.identity(args.weights), wants=["pooled", "tokens", "maps"])
