"""Networks small enough for tests, and the files they come in."""

import json
import re
from argparse import Namespace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unposed.models.dust3r import Dust3r, Dust3rConfig
from unposed.models.mini import Mini, MiniConfig
from unposed.models.reloc3r import Reloc3r, Reloc3rConfig
from unposed.views import View

DUST3R = Dust3rConfig(
    img_size=(64, 64),
    head_type="linear",
    enc_embed_dim=32,
    enc_depth=2,
    enc_num_heads=2,
    dec_embed_dim=16,
    dec_depth=2,
    dec_num_heads=2,
)
MINI = MiniConfig(
    image_size=64,
    enc_width=32,
    enc_depth=1,
    enc_heads=2,
    dec_width=16,
    dec_depth=2,
    dec_heads=2,
    head_width=8,
    descriptor_width=6,
)
RELOC3R_SIZES = {
    "img_size": 64,
    "enc_embed_dim": 32,
    "enc_depth": 2,
    "enc_num_heads": 2,
    "dec_embed_dim": 16,
    "dec_depth": 2,
    "dec_num_heads": 2,
}
RELOC3R = Reloc3rConfig(**RELOC3R_SIZES)
DUST3R_TEXT = (
    "AsymmetricCroCo3DStereo(pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', img_size=(64, 64), "
    "head_type='linear', output_mode='pts3d', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
    "enc_embed_dim=32, enc_depth=2, enc_num_heads=2, dec_embed_dim=16, dec_depth=2, dec_num_heads=2)"
)


def dust3r(config: Dust3rConfig = DUST3R) -> Dust3r:
    torch.manual_seed(0)
    return Dust3r(config).eval()


def reloc3r(config: Reloc3rConfig = RELOC3R, name: str = "reloc3r") -> Reloc3r:
    torch.manual_seed(0)
    return Reloc3r(config, name).eval()


def mini() -> Mini:
    torch.manual_seed(0)
    return Mini(MINI).eval()


def reference_names(network: Dust3r) -> dict[str, Tensor]:
    """Weights of a network with a linear head under the names of the released files."""
    parts = (
        ("encoder.blocks.", "enc_blocks."),
        ("encoder.norm.", "enc_norm."),
        ("decoder.embed.", "decoder_embed."),
        ("decoder.blocks1.", "dec_blocks."),
        ("decoder.blocks2.", "dec_blocks2."),
        ("decoder.norm.", "dec_norm."),
        ("head1.", "downstream_head1."),
        ("head2.", "downstream_head2."),
        ("patch_embed.", "patch_embed."),
    )
    named = {}
    for name, tensor in network.state_dict().items():
        ours, theirs = next(part for part in parts if name.startswith(part[0]))
        named[theirs + name.removeprefix(ours)] = tensor.clone()
    named["mask_token"] = torch.zeros(1, 1, network.config.dec_embed_dim)
    return named


def write_dust3r(folder: Path) -> Path:
    """A training file as released: ``model`` and ``args``."""
    path = folder / "dust3r.pth"
    torch.save({"model": reference_names(dust3r()), "args": Namespace(model=DUST3R_TEXT), "epoch": 3}, path)
    return path


def write_hub_dust3r(folder: Path) -> Path:
    """A hub folder as released: ``config.json`` and ``model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(reference_names(dust3r()), folder / "model.safetensors")
    config = {
        "head_type": "linear",
        "img_size": [64, 64],
        "depth_mode": ["exp", -float("inf"), float("inf")],
        "conf_mode": ["exp", 1, float("inf")],
        "landscape_only": False,
        "pos_embed": "RoPE100",
        "output_mode": "pts3d",
    }
    sizes = ("enc_embed_dim", "enc_depth", "enc_num_heads", "dec_embed_dim", "dec_depth", "dec_num_heads")
    config |= {name: getattr(DUST3R, name) for name in sizes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def reloc3r_names(network: Reloc3r) -> dict[str, Tensor]:
    """Weights under the names of the released files."""
    rules = (
        (r"encoder\.(blocks|norm)\.", r"enc_\1."),
        (r"decoder\.embed\.", "decoder_embed."),
        (r"decoder\.(blocks|norm)\.", r"dec_\1."),
        (r"head\.residual\.(\d)\.conv(\d)", r"pose_head.res_conv.\1.res_conv\2"),
        (r"head\.mlp\.", "pose_head.more_mlps."),
        (r"head\.translation\.", "pose_head.fc_t."),
        (r"head\.rotation\.", "pose_head.fc_rot."),
        (r"head\.proj\.", "pose_head.proj."),
    )
    named = {}
    for name, tensor in network.state_dict().items():
        for pattern, target in rules:
            name = re.sub(f"^{pattern}", target, name)
        named[name] = tensor.clone()
    return named


def write_reloc3r(folder: Path) -> Path:
    """A hub folder as released: ``config.json`` and ``model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(reloc3r_names(reloc3r()), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(RELOC3R_SIZES))
    return folder


def write_mini(path: Path, network: nn.Module | None = None) -> Path:
    """A file as training exports it: half precision, configuration in the metadata."""
    tensors = {name: tensor.half() for name, tensor in (network or mini()).state_dict().items()}
    save_file(tensors, path, metadata={"system": "mini", "config": json.dumps(vars(MINI)), "card": "{}"})
    return path


def view(name: str, height: int, width: int) -> View:
    """A view of random pixels."""
    stream = torch.Generator().manual_seed(sum(map(ord, name)))
    pixels = torch.randint(0, 256, (height, width, 3), generator=stream, dtype=torch.uint8)
    return View(name, pixels, torch.eye(3, dtype=torch.float64), (width, height))
