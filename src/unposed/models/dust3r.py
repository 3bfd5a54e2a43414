"""DUSt3R: two pictures in, two pointmaps out, both in the camera frame of picture 1, up to one unknown scale.

Wang, Leroy, Cabon, Chidlovskii, Revaud: DUSt3R, Geometric 3D Vision Made Easy, CVPR 2024. One ViT encodes both
pictures; two decoders exchange information in every block; one dense head per decoder regresses, for every pixel, a
3D point and a confidence (section 3.1, figure 2).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.io.checkpoints import Checkpoint, Rename, load_tensors, parse_constructor, rename_tensors
from unposed.io.resize import ImageRule
from unposed.models.batching import Features, Maps, decode_by_shape
from unposed.models.croco import are_sides, check_sizes, dpt_keys, rope_base
from unposed.models.picture_encoder import Encoded, Images, PictureEncoder, Shapes, stored_transposed
from unposed.nets.heads import DptHead, LinearHead, Mode, regress_confidence, regress_points
from unposed.nets.positions import Grid
from unposed.nets.transformer import TwinDecoder, initialise
from unposed.views import Pair, PairPrediction, View

Size = tuple[int, int]
_PATCH = 16
_IGNORED_KEYWORDS = {"patch_embed_cls", "landscape_only", "freeze", "patch_size", "mlp_ratio"}


@dataclass(frozen=True)
class Dust3rConfig:
    """Sizes and output modes; the defaults are those of the three released models but for the head and the size."""

    img_size: tuple[int, int] = (512, 512)
    head_type: str = "dpt"
    output_mode: str = "pts3d"
    depth_mode: Mode = ("exp", float("-inf"), float("inf"))
    conf_mode: Mode | None = ("exp", 1, float("inf"))
    enc_embed_dim: int = 1024
    enc_depth: int = 24
    enc_num_heads: int = 16
    dec_embed_dim: int = 768
    dec_depth: int = 12
    dec_num_heads: int = 12
    pos_embed: str = "RoPE100"

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> Self:
        """From the keywords of the reference's constructor, as released files and hub configurations hold them.

        How pictures are stored for training (``landscape_only``, ``patch_embed_cls``) is left out: it changes no
        weight, and here every picture keeps its orientation.

        Raises:
            UserError: an unknown keyword, or a value that no such network can have.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(keywords) - known - _IGNORED_KEYWORDS)
        if unknown:
            raise UserError(f"The configuration has {unknown[0]!r}, which this model does not know; is it another's?")
        if keywords.get("patch_size", _PATCH) != _PATCH:
            raise UserError("This configuration has another patch size than the released ones.")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in keywords.items() if k in known}
        config = cls(**values)
        config._validate_backbone()
        config._validate_head()
        return config

    def _validate_backbone(self) -> None:
        check_sizes(self.enc_embed_dim, self.enc_depth, self.enc_num_heads)
        check_sizes(self.dec_embed_dim, self.dec_depth, self.dec_num_heads)
        if rope_base(self.pos_embed) is None:
            raise UserError(f"No position embedding {self.pos_embed!r} in this family; released models have RoPE100.")
        if not are_sides(self.img_size) or not is_mode(self.depth_mode, ("exp", "square", "linear")):
            raise UserError("This configuration has an impossible picture size or depth mode.")
        if self.conf_mode is not None and not is_mode(self.conf_mode, ("exp", "sigmoid")):
            raise UserError(f"No confidence mode {self.conf_mode!r} in this family; released models have exp.")

    def _validate_head(self) -> None:
        if self.output_mode != "pts3d":
            raise UserError(f"No DUSt3R output {self.output_mode!r}; released models have pts3d.")
        if self.head_type not in ("linear", "dpt") or (self.head_type == "dpt" and self.dec_depth < 10):
            raise UserError(f"No DUSt3R head {self.head_type!r} for {self.dec_depth} decoder blocks.")


class Dust3r(PictureEncoder):
    """The network and its use as a ``PairModel``."""

    metric = False
    config_type: ClassVar[type[Dust3rConfig]] = Dust3rConfig

    def __init__(self, config: Dust3rConfig, name: str = "dust3r") -> None:
        base = rope_base(config.pos_embed)
        super().__init__(_PATCH, config.enc_embed_dim, config.enc_depth, config.enc_num_heads, base)
        self.config = config
        self.name = name
        self.image_rule = ImageRule(size=max(config.img_size))
        self.decoder = TwinDecoder(config.enc_embed_dim, config.dec_embed_dim, config.dec_depth, config.dec_num_heads)
        for part in (self.patch_embed, self.encoder, self.decoder):
            initialise(part)
        self.head1, self.head2 = self.make_head(), self.make_head()

    def make_head(self) -> nn.Module:
        """The head of one stream: token layers to raw maps."""
        config = self.config
        channels = 3 if config.conf_mode is None else 4
        if config.head_type == "linear":
            return LinearHead(config.dec_embed_dim, channels, _PATCH)
        return dpt_head(config, channels)

    def activate(self, raw: Float[Tensor, "batch height width channels"]) -> Maps:
        """Raw maps to points and, where the model has it, confidence."""
        maps = {"points": regress_points(raw[..., :3], self.config.depth_mode)}
        if self.config.conf_mode is not None:
            maps["confidence"] = regress_confidence(raw[..., 3], self.config.conf_mode)
        return maps

    def decode_tokens(self, view1: Encoded, view2: Encoded) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Token layers of both streams: encoder output, decoder block 1, ..., last block (normalised)."""
        rotary1, rotary2 = (self._rotary(view.positions, self.decoder.head_dim) for view in (view1, view2))
        return self.decoder(view1.tokens, view2.tokens, rotary1, rotary2)

    def read_out(
        self, head: nn.Module, layers: Sequence[Tensor], size: Size, transposed: Bool[Tensor, " batch"] | None = None
    ) -> Maps:
        """Maps of one view of (height, width) ``size``, as stored; see ``activate``."""
        with torch.autocast(layers[0].device.type, enabled=False):
            if transposed is None:
                raw = head(layers, _grid(size))
            else:
                landscape = head([layer[~transposed] for layer in layers], _grid(size))
                portrait = head([layer[transposed] for layer in layers], _grid(size[::-1])).mT
                raw = portrait.new_empty(len(transposed), *portrait.shape[1:])
                raw[~transposed], raw[transposed] = landscape, portrait
            return self.activate(raw.permute(0, 2, 3, 1))

    def forward(
        self,
        images1: Images,
        images2: Images,
        true_shape1: Shapes | None = None,
        true_shape2: Shapes | None = None,
        symmetrized: bool = False,
    ) -> tuple[Maps, Maps]:
        """Differentiable forward of a batch of pairs; see ``encode_images`` for ``true_shape``.

        ``symmetrized`` says that the batch is [a0, b0, a1, b1, ...] against [b0, a0, b1, a1, ...]: every picture is
        then encoded once.
        """
        view1, view2 = self.encode_pair(images1, images2, true_shape1, true_shape2, symmetrized)
        layers1, layers2 = self.decode_tokens(view1, view2)
        return (
            self.read_out(self.head1, layers1, _size(images1), stored_transposed(images1, true_shape1)),
            self.read_out(self.head2, layers2, _size(images2), stored_transposed(images2, true_shape2)),
        )

    def encode_pair(
        self,
        images1: Images,
        images2: Images,
        true_shape1: Shapes | None = None,
        true_shape2: Shapes | None = None,
        symmetrized: bool = False,
    ) -> tuple[Encoded, Encoded]:
        """Encode both sides of a batch of pairs, every picture of a symmetrised batch once."""
        if not symmetrized:
            return self.encode_images(images1, true_shape1), self.encode_images(images2, true_shape2)
        a = self.encode_images(images1[::2], None if true_shape1 is None else true_shape1[::2])
        b = self.encode_images(images2[::2], None if true_shape2 is None else true_shape2[::2])
        return _interleaved(a, b), _interleaved(b, a)

    @torch.no_grad()
    def decode(
        self, views: Sequence[View], features: Sequence[Features], pairs: Sequence[Pair]
    ) -> Iterator[tuple[Pair, PairPrediction]]:
        """Predictions of ordered pairs, batched by the shapes of their views."""
        yield from decode_by_shape(self._decode_features, views, features, pairs, self.device)

    def _decode_features(self, view_i: Features, view_j: Features, size_i: Size, size_j: Size) -> tuple[Maps, Maps]:
        encoded_i, encoded_j = self._encoded(view_i["tokens"], size_i), self._encoded(view_j["tokens"], size_j)
        layers_i, layers_j = self.decode_tokens(encoded_i, encoded_j)
        return self.read_out(self.head1, layers_i, size_i), self.read_out(self.head2, layers_j, size_j)

    @classmethod
    def keys(cls) -> Sequence[Rename]:
        """Names of the released files to ours."""
        return KEYS

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, name: str = "dust3r") -> Self:
        """The network of a released file: ``.pth`` with ``args.model`` in text, or a hub folder with its configuration.

        Raises:
            UserError: no configuration in it, or names or shapes that do not fit.
        """
        with torch.device("meta"):
            network = cls(cls.config_type.from_keywords(released_keywords(checkpoint)), name)
        tensors = rename_tensors(checkpoint.tensors, cls.keys())
        if not any(key.startswith("decoder.blocks2.") for key in tensors):  # CroCo has one decoder: both start from it
            first = "decoder.blocks1."
            tensors |= {
                key.replace(first, "decoder.blocks2."): t for key, t in tensors.items() if key.startswith(first)
            }
        load_tensors(network, tensors, checkpoint.path)
        return network


def is_mode(value: Any, names: Sequence[str]) -> bool:
    """Whether a value of a configuration is (one of the names, lower bound, upper bound)."""
    numbers = (
        isinstance(value, tuple) and len(value) == 3 and all(isinstance(bound, int | float) for bound in value[1:])
    )
    return numbers and value[0] in names


def dpt_head(config: Dust3rConfig, channels: int) -> DptHead:
    """DPT head that reads the encoder's tokens and the decoder's at half, three quarters and all of its depth."""
    depth, width = config.dec_depth, config.dec_embed_dim
    return DptHead((0, depth // 2, depth * 3 // 4, depth), (config.enc_embed_dim, width, width, width), channels)


def released_keywords(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Keywords of the reference's constructor that a released file, or the config.json beside it, holds.

    Raises:
        UserError: there are none.
    """
    config = checkpoint.extra.get("config")
    if config is None:
        arguments = checkpoint.extra.get("args")
        if not isinstance(arguments, dict) or "model" not in arguments:
            raise UserError(f"{checkpoint.path} does not say how its network is built; put its config.json beside it.")
        _, config = parse_constructor(arguments["model"])
    return config


BACKBONE_KEYS = (
    Rename(r"enc_blocks\.(.+)", r"encoder.blocks.\1"),
    Rename(r"enc_norm\.(.+)", r"encoder.norm.\1"),
    Rename(r"decoder_embed\.(.+)", r"decoder.embed.\1"),
    Rename(r"dec_blocks\.(.+)", r"decoder.blocks1.\1"),
    Rename(r"dec_blocks2\.(.+)", r"decoder.blocks2.\1"),
    Rename(r"dec_norm\.(.+)", r"decoder.norm.\1"),
    Rename(r"mask_token", None),
)
"""Names of encoder and decoders in the family's released files to ours."""

KEYS = (
    *BACKBONE_KEYS,
    Rename(r"downstream_head([12])\.proj\.(.+)", r"head\1.proj.\2"),
    *dpt_keys(r"downstream_head([12])\.dpt\.", r"head\1."),
)
"""Names of the released files to ours."""


def _grid(size: Size) -> Grid:
    return size[0] // _PATCH, size[1] // _PATCH


def _size(images: Images) -> Size:
    return images.shape[-2], images.shape[-1]


def _interleaved(a: Encoded, b: Encoded) -> Encoded:
    return Encoded(*(torch.stack([x, y], 1).flatten(0, 1) for x, y in zip(a, b, strict=True)))
