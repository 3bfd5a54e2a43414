"""CroCo v1 and v2: self-supervised cross-view completion, and its use for stereo and optical flow.

Weinzaepfel et al., CroCo, NeurIPS 2022; CroCo v2, ICCV 2023. Picture 1 is masked, picture 2 shows the scene from
elsewhere; the network completes the masked patches (section 3). CroCo-Stereo and CroCo-Flow put a DPT head on the
same encoder and decoder (CroCo v2, section 3.4). Pictures are RGB normalised with ``IMAGE_MEAN`` and ``IMAGE_STD``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.io.checkpoints import Checkpoint, Rename, load_tensors, parse_constructor, rename_tensors
from unposed.nets.heads import DptHead
from unposed.nets.positions import Grid, RotaryTable, cosine_table, grid_positions, resize_table, rotary_table
from unposed.nets.transformer import DecoderBlock, Encoder, LayerNorm, Linear, PatchEmbed, initialise

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

Images = Float[Tensor, "batch 3 height width"]
Tokens = Float[Tensor, "batch tokens width"]
Mask = Bool[Tensor, "batch tokens"]
Patches = Float[Tensor, "batch tokens pixels"]
_DECODER_HOOK_STEP = {8: 3, 12: 4, 24: 8}


@dataclass(frozen=True)
class CrocoConfig:
    """Sizes of a CroCo network; the defaults are CroCo v1's, which its file does not spell out."""

    img_size: int | tuple[int, int] = 224
    """Side, or (height, width), of the pictures seen in training."""
    patch_size: int = 16
    mask_ratio: float = 0.9
    enc_embed_dim: int = 768
    enc_depth: int = 12
    enc_num_heads: int = 12
    dec_embed_dim: int = 512
    dec_depth: int = 8
    dec_num_heads: int = 16
    mlp_ratio: float = 4
    norm_im2_in_dec: bool = True
    pos_embed: str = "cosine"
    """``cosine`` (v1) or ``RoPE`` and its base (v2)."""

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> "CrocoConfig":
        """From the constructor keywords that a checkpoint holds.

        Raises:
            UserError: an unknown keyword, or a position embedding that no release has.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(keywords) - known)
        if unknown:
            raise UserError(f"The configuration has {unknown[0]!r}, which CroCo does not know; is it another model's?")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in keywords.items()}
        config = cls(**values)
        check_sizes(config.enc_embed_dim, config.enc_depth, config.enc_num_heads)
        check_sizes(config.dec_embed_dim, config.dec_depth, config.dec_num_heads)
        if config.pos_embed != "cosine" and rope_base(config.pos_embed) is None:
            raise UserError(f"No position embedding {config.pos_embed!r} in CroCo; give a released checkpoint.")
        sides = config.img_size if isinstance(config.img_size, tuple) else (config.img_size, config.img_size)
        if not (are_sides(sides) and config.patch_size == 16 and config.mlp_ratio in (1, 2, 3, 4)):
            raise UserError("This CroCo configuration has other picture or patch sizes than a released one can have.")
        return config

    @property
    def rope_base(self) -> float | None:
        """Base of the rotary embedding; None for cosine tables."""
        return rope_base(self.pos_embed)

    @property
    def grid(self) -> Grid:
        """Patches of a training picture."""
        height, width = (self.img_size, self.img_size) if isinstance(self.img_size, int) else self.img_size
        return height // self.patch_size, width // self.patch_size


class CrocoBackbone(nn.Module):
    """Encoder of one picture and decoder of a pair; with ``decoder=False`` the encoder alone."""

    enc_pos_embed: Tensor
    dec_pos_embed: Tensor

    def __init__(self, config: CrocoConfig, decoder: bool = True) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.patch_size, config.enc_embed_dim)
        self.encoder = Encoder(config.enc_embed_dim, config.enc_depth, config.enc_num_heads, config.mlp_ratio)
        if config.rope_base is None:
            self.register_buffer("enc_pos_embed", cosine_table(config.grid, config.enc_embed_dim))
            if decoder:
                self.register_buffer("dec_pos_embed", cosine_table(config.grid, config.dec_embed_dim))
        if decoder:
            width, heads = config.dec_embed_dim, config.dec_num_heads
            self.decoder_embed = Linear(config.enc_embed_dim, width)
            self.dec_blocks = nn.ModuleList(
                DecoderBlock(width, heads, config.mlp_ratio, config.norm_im2_in_dec) for _ in range(config.dec_depth)
            )
            self.dec_norm = LayerNorm(width)
        initialise(self)

    def encode(self, images: Images, visible: Mask | None = None) -> list[Tokens]:
        """Output of every encoder block (the last normalised) for all tokens, or for the ``visible`` ones only.

        Every picture of a batch has the same number of visible tokens.
        """
        grid = self.patch_embed.grid(images)
        tokens = self.patch_embed(images)
        positions = grid_positions(grid, images.device).expand(len(images), -1, -1)
        if self.config.rope_base is None:
            tokens = tokens + _table_for(self.enc_pos_embed, self.config.grid, grid)
        if visible is not None:
            tokens, positions = (x[visible].unflatten(0, (len(images), -1)) for x in (tokens, positions))
        return self.encoder.all_layers(tokens, self._rotary(positions, self.encoder.head_dim))

    def embed_for_decoder(self, tokens: Tokens) -> Tokens:
        """Encoder tokens at the decoder's width."""
        return self.decoder_embed(tokens).float()

    def decode(self, tokens1: Tokens, tokens2: Tokens, grid: Grid) -> list[Tokens]:
        """Output of every decoder block for picture 1 (the last normalised); picture 2 only answers."""
        if self.config.rope_base is None:
            table = _table_for(self.dec_pos_embed, self.config.grid, grid)
            tokens1, tokens2 = tokens1 + table, tokens2 + table
        head_dim = self.config.dec_embed_dim // self.config.dec_num_heads
        rotary = self._rotary(grid_positions(grid, tokens1.device), head_dim)
        layers = []
        for block in self.dec_blocks:
            tokens1 = block(tokens1, tokens2, rotary, rotary)
            layers.append(tokens1)
        layers[-1] = self.dec_norm(tokens1)
        return layers

    def _rotary(self, positions: Int[Tensor, "*batch tokens 2"], head_dim: int) -> RotaryTable | None:
        base = self.config.rope_base
        return None if base is None else rotary_table(positions, head_dim, base)


class Croco(nn.Module):
    """Cross-view completion, the pre-training task (CroCo, section 3.1)."""

    def __init__(self, config: CrocoConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = CrocoBackbone(config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.dec_embed_dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.prediction_head = Linear(config.dec_embed_dim, config.patch_size**2 * 3)
        initialise(self.prediction_head)

    def random_mask(self, noise: Float[Tensor, "batch tokens"]) -> Mask:
        """Which tokens of picture 1 to mask (True): exactly ``mask_ratio`` of them, from uniform noise."""
        return noise.argsort(dim=1) < int(self.config.mask_ratio * noise.shape[1])

    def forward(self, images1: Images, images2: Images, mask: Mask) -> Patches:
        """Predicted pixels of every patch of picture 1, in the layout of ``patchify``."""
        backbone = self.backbone
        seen = backbone.embed_for_decoder(backbone.encode(images1, ~mask)[-1])
        tokens2 = backbone.embed_for_decoder(backbone.encode(images2)[-1])
        tokens1 = self.mask_token.expand(*mask.shape, -1).masked_scatter(~mask[..., None], seen)
        layers = backbone.decode(tokens1, tokens2, backbone.patch_embed.grid(images1))
        return self.prediction_head(layers[-1]).float()

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "Croco":
        """The network of a pre-training file; without ``croco_kwargs`` or ``args.model`` it is CroCo v1.

        Raises:
            UserError: names or shapes that do not fit.
        """
        arguments = checkpoint.extra.get("args")
        keywords = checkpoint.extra.get("croco_kwargs")
        if keywords is None and isinstance(arguments, dict) and "model" in arguments:
            _, keywords = parse_constructor(arguments["model"])
        with torch.device("meta"):
            network = cls(CrocoConfig.from_keywords(keywords or {}))
        load_tensors(network, rename_tensors(checkpoint.tensors, KEYS), checkpoint.path)
        return network


class CrocoDense(nn.Module):
    """A dense map of picture 1: disparity, flow or anything, from one picture or a pair (CroCo v2, section 3.4)."""

    def __init__(self, config: CrocoConfig, channels: int, binocular: bool = True) -> None:
        super().__init__()
        self.backbone = CrocoBackbone(config, decoder=binocular)
        self.binocular = binocular
        last = config.enc_depth - 1 + (config.dec_depth if binocular else 0)
        step = _DECODER_HOOK_STEP[config.dec_depth] if binocular else config.enc_depth // 4
        hooks = tuple(last - step * k for k in (3, 2, 1, 0))
        widths = [config.enc_embed_dim if hook < config.enc_depth else config.dec_embed_dim for hook in hooks]
        self.head = DptHead(hooks, widths, channels, last_width=32)

    def forward(self, images1: Images, images2: Images | None = None) -> Float[Tensor, "batch channels height width"]:
        """The map at the pictures' size. With confidence, its raw value is the last channel."""
        backbone = self.backbone
        grid = backbone.patch_embed.grid(images1)
        if images2 is None:
            return self.head(backbone.encode(images1), grid)
        both = backbone.encode(torch.cat([images1, images2]))
        tokens1, tokens2 = backbone.embed_for_decoder(both[-1]).chunk(2)
        layers = [layer[: len(images1)] for layer in both]
        return self.head(layers + backbone.decode(tokens1, tokens2, grid), grid)


@dataclass(frozen=True, eq=False)
class StereoFlow:
    """A released CroCo-Stereo or CroCo-Flow model and how it was trained to be used."""

    network: CrocoDense
    task: str
    """``stereo`` (disparity, positive, x_right = x_left - d) or ``flow`` (dx, dy from picture 1 to 2), in pixels."""
    window: tuple[int, int]
    """(height, width) of the tiles."""
    criterion: str
    """Name of the training loss, which says what the raw confidence means."""
    confidence_mode: str
    """How tiles are blended; see ``unposed.models.tiling``."""

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "StereoFlow":
        """Read a released stereo or flow file.

        Raises:
            UserError: it does not say what it is, or names or shapes do not fit.
        """
        arguments = checkpoint.extra.get("args")
        if not isinstance(arguments, dict) or arguments.get("task") not in ("stereo", "flow"):
            raise UserError(f"{checkpoint.path} is no CroCo-Stereo or CroCo-Flow checkpoint.")
        lacking = {"criterion", "croco_args", "crop", "tile_conf_mode"} - set(arguments)
        crop = arguments.get("crop")
        window = tuple(crop) if isinstance(crop, list | tuple) else ()
        if lacking or not isinstance(arguments["croco_args"], dict) or not are_sides(window):
            raise UserError(f"{checkpoint.path} does not say how it was trained; it is damaged or no released file.")
        criterion, _ = parse_constructor(arguments["criterion"])
        config = CrocoConfig.from_keywords(arguments["croco_args"])
        if config.dec_depth not in _DECODER_HOOK_STEP:
            raise UserError(f"{checkpoint.path} has {config.dec_depth} decoder blocks, which no released file has.")
        channels = {"stereo": 1, "flow": 2}[arguments["task"]] + (criterion != "L1Loss")
        with torch.device("meta"):
            network = CrocoDense(config, channels)
        load_tensors(network, rename_tensors(checkpoint.tensors, KEYS), checkpoint.path)
        return cls(network, arguments["task"], (window[0], window[1]), criterion, arguments["tile_conf_mode"])


def rope_base(text: Any) -> float | None:
    """100.0 of ``RoPE100``; None where ``text`` is nothing of that kind."""
    match = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", text) if isinstance(text, str) else None
    return float(match[1]) if match else None


def are_sides(value: Any) -> bool:
    """Whether ``value`` is two sides of a picture, of one to 256 patches of 16 pixels."""
    return isinstance(value, tuple) and len(value) == 2 and all(type(v) is int and 16 <= v <= 4096 for v in value)


def check_sizes(width: Any, depth: Any, heads: Any) -> None:
    """Refuse transformer sizes that no network of the family has, before anything is built from them.

    Raises:
        UserError: they are no integers, too large, or do not divide.
    """
    integers = all(type(value) is int for value in (width, depth, heads))
    if not (integers and 0 < depth <= 64 and heads > 0 and 0 < width <= 4096 and width % (4 * heads) == 0):
        raise UserError(f"Impossible network size (width {width}, depth {depth}, {heads} heads); the file is damaged.")


def patchify(images: Images, patch: int = 16) -> Patches:
    """Pixels of every patch; the order inside a patch is (row, column, rgb)."""
    patches = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Patches, grid: Grid, patch: int = 16) -> Images:
    """Inverse of ``patchify``."""
    pixels = patches.unflatten(1, grid).unflatten(3, (patch, patch, 3))
    return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def dpt_keys(theirs: str, ours: str) -> list[Rename]:
    """Names of a DPT head in the reference's files, behind a pattern, to ours.

    Two tensors have two names each; the list names come first because they win in the reference. The coarsest
    fusion has a residual unit without a use; it is dropped.
    """
    rows = [
        *(Rename(rf"{theirs}scratch\.layer_rn\.{k}\.weight", rf"{ours}reduce.{k}.weight") for k in range(4)),
        *(Rename(rf"{theirs}scratch\.layer{k + 1}_rn\.weight", rf"{ours}reduce.{k}.weight") for k in range(4)),
        Rename(rf"{theirs}scratch\.refinenet4\.resConfUnit1\..+", None),
    ]
    for k in range(4):
        fusion = rf"{theirs}scratch\.refinenet{k + 1}\."
        rows += [
            _module(rf"{fusion}resConfUnit1\.", rf"{ours}fusions.{k}.skip."),
            _module(rf"{fusion}resConfUnit2\.", rf"{ours}fusions.{k}.merge."),
            _module(rf"{fusion}out_conv\.", rf"{ours}fusions.{k}.out."),
        ]
        for name in (rf"{theirs}act_postprocess\.{k}\.", rf"{theirs}act_{k + 1}_postprocess\."):
            rows += [_module(rf"{name}0\.", rf"{ours}project.{k}."), _module(rf"{name}1\.", rf"{ours}resample.{k}.")]
    rows += [_module(rf"{theirs}head\.{2 * k}\.", rf"{ours}conv{k + 1}.") for k in range(3)]
    return rows


def _module(theirs: str, ours: str) -> Rename:
    return Rename(rf"{theirs}(?P<rest>.+)", rf"{ours}\g<rest>")


KEYS = (
    Rename(r"enc_blocks\.(.+)", r"backbone.encoder.blocks.\1"),
    Rename(r"enc_norm\.(.+)", r"backbone.encoder.norm.\1"),
    Rename(r"((?:patch_embed|decoder_embed|dec_blocks|dec_norm)\..+)", r"backbone.\1"),
    Rename(r"((?:enc|dec)_pos_embed)", r"backbone.\1"),
    *dpt_keys(r"head\.dpt\.", "head."),
)
"""Names of the released files to ours."""


def _table_for(table: Float[Tensor, "tokens width"], made_for: Grid, grid: Grid) -> Float[Tensor, "new_tokens width"]:
    return table if grid == made_for else resize_table(table, grid)
