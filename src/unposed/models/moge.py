"""MoGe and MoGe-2 in use: affine-invariant maps to a camera, a depth, points, and in MoGe-2 metres.

The networks are in ``unposed.models.moge_networks``. What they leave open, the focal length and a shift along z,
follows from the points having to project to their own pixels (MoGe, section 3.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.geometry.cameras import pixel_grid
from unposed.geometry.focal_shift import recover_focal_shift, recover_shift
from unposed.geometry.view_plane import spans
from unposed.io.checkpoints import Checkpoint, Rename, load_tensors, rename_tensors
from unposed.io.resize import ImageRule, WholeRule
from unposed.models.base import MonocularPrediction
from unposed.models.batching import batches
from unposed.models.moge_config import MogeV1Config, parse_config
from unposed.models.moge_networks import MogeV1, MogeV2, RawMaps
from unposed.views import View

LEVELS_OF_RESOLUTION = 9
"""Resolution levels 0 to 9 span the range of token counts seen in training; higher ones go on beyond it."""
_LONG_SIDE = 1600

KEYS = (Rename(r"(?:.+\.)?backbone\.mask_token", None),)
"""Our names are those of the released files; the token of masked patches has no use outside DINOv2's own training."""


@dataclass(frozen=True, eq=False)
class SolvedMaps:
    """Maps of a batch of pictures with their cameras. Values where ``mask`` is False mean little."""

    points: Float[Tensor, "batch height width 3"]
    """In the camera frame."""
    depth: Float[Tensor, "batch height width"]
    """z; may be 0 or negative outside the mask."""
    mask: Bool[Tensor, "batch height width"]
    normalised_intrinsics: Float[Tensor, "batch 3 3"]
    """K for a picture that is the unit square, its corners at (0, 0) and (1, 1)."""
    normals: Float[Tensor, "batch height width 3"] | None


class Moge(nn.Module):
    """A released MoGe or MoGe-2 model as a ``MonocularModel``."""

    image_rule: ImageRule = WholeRule(_LONG_SIDE)

    def __init__(self, network: MogeV1 | MogeV2, name: str = "moge") -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.metric = isinstance(network, MogeV2) and network.scale_head is not None

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, name: str = "moge") -> "Moge":
        """The model of a released file (``model_config`` and ``model``), of either version.

        Raises:
            UserError: no configuration, one that is not known, or names or shapes that do not fit it.
        """
        config = parse_config(checkpoint.extra.get("model_config"))
        with torch.device("meta"):
            network = MogeV1(config) if isinstance(config, MogeV1Config) else MogeV2(config)
        load_tensors(network, rename_tensors(checkpoint.tensors, KEYS), checkpoint.path)
        return cls(network, name)

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.network.parameters()).device

    def tokens(self, resolution_level: float = LEVELS_OF_RESOLUTION) -> int:
        """Number of patches that a resolution level means."""
        low, high = self.network.config.num_tokens_range
        return max(1, int(low + resolution_level / LEVELS_OF_RESOLUTION * (high - low)))

    @torch.no_grad()
    def infer(
        self,
        views: Sequence[View],
        *,
        intrinsics: Sequence[Float[Tensor, "3 3"] | None] | None = None,
        field_of_view: float | None = None,
        resolution_level: float = LEVELS_OF_RESOLUTION,
        tokens: int | None = None,
        normals: bool = True,
    ) -> list[MonocularPrediction]:
        """Geometry of each view by itself, in order.

        Args:
            views: Photos of any size and aspect ratio; far beyond 1:2 or 2:1 is outside what it was trained for.
            intrinsics: K of the views in their pixels, None where unknown; its focal length and principal point hold.
            field_of_view: Horizontal, degrees, where ``intrinsics`` say nothing; by default it is estimated.
            resolution_level: 0 (fast) to 9 (fine); higher is possible.
            tokens: Number of patches, instead of a level.
            normals: Whether to predict them, where the model can.

        Raises:
            UserError: an impossible field of view, level or number of patches.
        """
        if field_of_view is not None and not 0 < field_of_view < 180:
            raise UserError(f"A field of view of {field_of_view:g} degrees is none; give one between 0 and 180.")
        if not resolution_level >= 0 or (tokens is not None and tokens < 1):
            raise UserError("The resolution level is 0 or more, and there is at least one patch.")
        known = list(intrinsics) if intrinsics is not None else [None] * len(views)
        count = tokens or self.tokens(resolution_level)
        found: dict[int, MonocularPrediction] = {}
        for batch in batches(
            range(len(views)),
            lambda i: (views[i].size, known[i] is None),
            lambda i: views[i].size[0] * views[i].size[1],
            self.device,
        ):
            cameras = [k for i in batch if (k := known[i]) is not None]
            predicted = self._infer_batch([views[i] for i in batch], cameras, field_of_view, count, normals)
            found |= zip(batch, predicted, strict=True)
        return [found[i] for i in range(len(views))]

    def _infer_batch(
        self,
        views: Sequence[View],
        intrinsics: Sequence[Float[Tensor, "3 3"]],
        field_of_view: float | None,
        tokens: int,
        normals: bool,
    ) -> list[MonocularPrediction]:
        """Views of one size, whose intrinsics are all known or all unknown (none given)."""
        images = torch.stack([view.image for view in views]).to(self.device).permute(0, 3, 1, 2).float() / 255
        raw = self.network(images, tokens, normals=normals)
        unit_from_pixel = _unit_from_pixel(*views[0].size)
        given = None
        if intrinsics:
            given = (unit_from_pixel @ torch.stack(list(intrinsics)).double().cpu()).to(images)
        solved = self.solve(raw, field_of_view=field_of_view, normalised_intrinsics=given)
        cameras = unit_from_pixel.inverse() @ solved.normalised_intrinsics.double().cpu()
        points, depth, mask = (maps.cpu() for maps in (solved.points, solved.depth, solved.mask))
        facing = None if solved.normals is None else solved.normals.float().cpu()
        return [
            MonocularPrediction(
                points[k], depth[k], mask[k], cameras[k].float(), None if facing is None else facing[k], self.metric
            )
            for k in range(len(views))
        ]

    def solve(
        self,
        raw: RawMaps,
        *,
        field_of_view: float | Sequence[float] | None = None,
        normalised_intrinsics: Float[Tensor, "batch 3 3"] | None = None,
        project: bool = True,
    ) -> SolvedMaps:
        """Cameras and shifts of a batch of raw maps; always in float32.

        Args:
            raw: What the network says.
            field_of_view: Horizontal, degrees, for all or for each; the principal point is the centre.
            normalised_intrinsics: The whole K instead, for pictures that are the unit square.
            project: Put every point on the ray of its pixel; else it keeps the network's x and y.
        """
        points = raw.points.float()
        threshold = self.network.config.mask_threshold
        mask = torch.isfinite(points).all(-1)
        if raw.mask is not None:
            mask &= raw.mask > threshold
        if field_of_view is not None and normalised_intrinsics is None:
            normalised_intrinsics = _intrinsics_of_view(field_of_view, points)
        if normalised_intrinsics is None:
            focal, shift = recover_focal_shift(points, mask)
            k = _centred_intrinsics(focal, points.shape[2] / points.shape[1])
        else:
            k = normalised_intrinsics.float()
            shift = recover_shift(points, _slopes(k, points), mask)
        depth = points[..., 2] + shift[:, None, None]
        if isinstance(self.network, MogeV2):
            mask &= depth > 0
        if project:
            slopes = _slopes(k, points)
            points = torch.cat([slopes, torch.ones_like(slopes[..., :1])], -1) * depth[..., None]
        else:
            points = torch.cat([points[..., :2], depth[..., None]], -1)
        if raw.metric_scale is not None:
            scale = raw.metric_scale.float()[:, None, None]
            points, depth = points * scale[..., None], depth * scale
        return SolvedMaps(points, depth, mask, k, raw.normals)


def _unit_from_pixel(height: int, width: int) -> Float[Tensor, "3 3"]:
    """Pixels, (0, 0) the centre of the top-left one, to the unit square."""
    return torch.tensor([[1 / width, 0, 0.5 / width], [0, 1 / height, 0.5 / height], [0, 0, 1]], dtype=torch.float64)


def _centred_intrinsics(focal: Float[Tensor, "batch"], aspect: float) -> Float[Tensor, "batch 3 3"]:
    """Normalised K from a focal length in units of half the diagonal; square pixels, centred."""
    half_width, half_height = spans(aspect)
    k = focal.new_zeros(len(focal), 3, 3)
    k[:, 0, 0], k[:, 1, 1] = focal / (2 * half_width), focal / (2 * half_height)
    k[:, :2, 2], k[:, 2, 2] = 0.5, 1.0
    return k


def _intrinsics_of_view(
    field_of_view: float | Sequence[float], points: Float[Tensor, "batch height width 3"]
) -> Float[Tensor, "batch 3 3"]:
    """Normalised K of a horizontal field of view in degrees."""
    aspect = points.shape[2] / points.shape[1]
    angles = torch.as_tensor(field_of_view, dtype=points.dtype, device=points.device).expand(len(points))
    return _centred_intrinsics(spans(aspect)[0] / torch.tan(torch.deg2rad(angles) / 2), aspect)


def _slopes(
    k: Float[Tensor, "batch 3 3"], like: Float[Tensor, "batch height width 3"]
) -> Float[Tensor, "batch height width 2"]:
    """(x / z, y / z) of the rays of all pixels of the unit square."""
    height, width = like.shape[1:3]
    pixels = (pixel_grid(height, width, like.device, like.dtype) + 0.5) / like.new_tensor([width, height])
    focal = k.diagonal(dim1=-2, dim2=-1)[:, None, None, :2]
    return (pixels - k[:, None, None, :2, 2]) / focal


def is_moge(extra: dict[str, Any]) -> bool:
    """Whether a checkpoint says of itself, in what is beside its tensors, that it is a MoGe model."""
    return "model_config" in extra
