"""Random weights in the names and layout of a model's official file, to try `cargo xtask parity` without that file
[nasaharvest/galileo, src/eval/baseline_models].

    python examples/parity/random_weights.py --repository galileo --model croma_base --to weights

The original's own class makes the parameters. Each gets noise on top of its initial value, so that no bias is zero and no
scale is one: a parameter that were left out would show.
"""

import argparse
import sys
from pathlib import Path

import slots
import torch
import wire

parser = argparse.ArgumentParser()
parser.add_argument("--repository", required=True, help="a checkout of nasaharvest/galileo")
parser.add_argument("--model", required=True, help="as in the evaluation: croma_base, decur, dofa_base, mmearth_atto, …")
parser.add_argument("--sensor", choices=["s1", "s2"], default="s2")
parser.add_argument("--to", required=True, help="the folder for the file, which the evaluation's loader reads")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
sys.path.insert(0, args.repository)
wire.stand_in(*slots.UNUSED)
from src.eval import baseline_models  # noqa: E402
from src.eval.baseline_models import mmearth  # noqa: E402

folder = Path(args.to)
torch.manual_seed(args.seed)
PRITHVI = """pretrained_cfg: {img_size: 224, num_frames: 4, patch_size: [1, 16, 16], in_chans: 6, embed_dim: 1024, depth: 24,
  num_heads: 16, decoder_embed_dim: 512, decoder_depth: 8, decoder_num_heads: 16, mlp_ratio: 4, coords_encoding: [],
  coords_scale_learn: false, bands: [B02, B03, B04, B05, B06, B07]}
"""
ABSENT = {"decur": ("head.",), "dofa": ("fc_norm.", "head."), "satmae": ("channel_cls_embed", "head.")}


class Opened:
    """What an original gets instead of the contents of a file: the file's path, and the keys that were looked up in it."""

    def __init__(self, path, keys=()):
        self.path, self.names = Path(path), tuple(keys)

    def __getitem__(self, key):
        return Opened(self.path, (*self.names, key))

    def keys(self):
        return []


def filled(module):
    """The parameters and buffers of a module, with noise."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                spread = parameter.std().item() if parameter.numel() > 1 else 0.0
                parameter.add_(torch.randn_like(parameter) * max(0.1 * spread, 0.02))
    return {name: values.clone() for name, values in module.state_dict().items()}


def keep(module, opened, **options):
    """Takes the place of load_state_dict: writes down what the file would have held."""
    if not isinstance(opened, Opened):
        return load_state_dict(module, opened, **options)
    state = filled(module)
    # Parameters of the classes that the official files do not hold: they keep their initial values.
    absent = ABSENT.get(args.model.split("_")[0], ())
    state = {name: values for name, values in state.items() if not name.startswith(absent)}
    if args.model.startswith("mmearth"):
        state = sparse(state)
    files.setdefault(opened.path, {})[opened.names] = state
    return torch.nn.modules.module._IncompatibleKeys(["head.weight", "head.bias"], [])


def sparse(state):
    """MMEarth's encoder in the names and shapes of MinkowskiEngine, which its loader turns into dense ones."""
    made = {}
    for name, values in state.items():
        part, kind = name.rsplit(".", 1)
        last = part.rsplit(".", 1)[-1]
        if name.startswith(("norm.", "head.")):
            continue
        if last.startswith("pwconv"):
            name = f"{part}.linear.{kind}"
        elif last == "grn":
            values = values.reshape(1, -1)
        elif values.dim() == 4:
            out, into, rows, columns = values.shape
            kernel = values.permute(3, 2, 1, 0).reshape(rows * columns, into, out)
            name, values = f"{part}.kernel", kernel.squeeze(1) if into == 1 else kernel
        elif f"{part}.weight" in state and state[f"{part}.weight"].dim() == 4:
            values = values.reshape(1, -1)
        else:
            name = f"{part}.ln.{kind}"
        made[f"encoder.{name}"] = values.contiguous()
    return made


def nested(parts):
    """The contents of a file, from the state dicts under each of its keys."""
    if () in parts:
        return parts[()]
    made = {}
    for keys, state in parts.items():
        place = made
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = state
    return made


files = {}
load_state_dict = torch.nn.Module.load_state_dict
torch.nn.Module.load_state_dict = keep
torch.load = lambda path, *_, **__: Opened(path)
torch.hub.load_state_dict_from_url = lambda *_, **__: Opened(folder / "AnySat.pth")
mmearth.remap_checkpoint_keys = lambda opened: opened
if args.model == "prithvi":
    (folder / "prithvi").mkdir(parents=True, exist_ok=True)
    (folder / "prithvi" / "config.json").write_text(PRITHVI)
if args.model.startswith("satlas"):
    # Its library takes prefixes off the names, so it is built without weights, and they are put on again.
    import satlaspretrain_models

    class Blank(satlaspretrain_models.Model):
        def __init__(self, *values, weights, **options):
            super().__init__(*values, **options)
            state = {f"backbone.{name}": values for name, values in filled(self.backbone).items()}
            files[weights.path] = {(): state}

    satlaspretrain_models.Model = Blank
if args.model.startswith("croma"):
    baseline_models.get_model_config = lambda model, path, _: {
        "model": baseline_models.croma.PretrainedCROMA,
        "args": {
            "pretrained_path": str(path / f"CROMA_{model.removeprefix('croma_')}.pt"),
            "size": model.removeprefix("croma_"),
            "modality": "both",
        },
    }
chosen = baseline_models.get_model_config(args.model, folder, args.sensor)
chosen["model"](**chosen["args"])
for path, parts in files.items():
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(nested(parts), path)
    print(path)
