"""The tiny vision transformer of the tests in plain torch, with the parameter names of timm's checkpoints."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

TOML = """\
name = "Tiny"
backbone = "ViT-48"
image = 64

[architecture]
kind = "vit"
width = 48
depth = 4
heads = 3
mlp-ratio = 4
patch = 8
positions = 8
map-layers = [0, 1, 2, 3]

[sensors.s2-l1c]
bands = {bands}
[sensors.s2-l2a]
bands = {bands}
"""

BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(d, 3 * d), nn.Linear(d, d), heads

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))


class Mlp(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d, eps=1e-6), nn.LayerNorm(d, eps=1e-6)
        self.attn, self.mlp = Attention(d, heads), Mlp(d)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.proj = nn.Conv2d(len(BANDS), d, 8, 8)


class TinyVit(nn.Module):
    """[n, 12, 64, 64] to the class token [n, 48], the patch tokens and the maps after each block."""

    def __init__(self, d=48):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, d))
        self.pos_embed = nn.Parameter(torch.zeros(1, 65, d))
        self.patch_embed = PatchEmbed(d)
        self.blocks = nn.Sequential(*(Block(d, 3) for _ in range(4)))
        self.norm = nn.LayerNorm(d, eps=1e-6)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                scale = 0.3 if parameter.dim() == 2 else 0.1
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
                if "norm" in name and name.endswith("weight"):
                    parameter += 1

    def forward(self, images):
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), 1, -1), x], 1) + self.pos_embed
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x[:, 1:].transpose(1, 2).reshape(len(x), -1, 8, 8))
        x = self.norm(x)
        return {"pooled": x[:, 0], "tokens": x[:, 1:], "grid": (8, 8), "maps": maps, "strides": [8] * 4}
