"""MASt3R-SfM's retrieval head: which encoder tokens of an image to keep, and in which whitened space.

Duisterhof, Zust, Weinzaepfel, Leroy, Cabon, Revaud: MASt3R-SfM, 3DV 2025, section 4.1. The released model is
"training-free": tokens of the frozen encoder are whitened and the longest are kept. The general form has a projector
between two whitenings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unposed.errors import UserError
from unposed.io.checkpoints import load_tensors

_SMALLEST_VARIANCE = 1e-14
_MAX_WIDTH = 16384


def learn_whitening(
    descriptors: Float[Tensor, "n dim"], exponent: float = 1.0
) -> tuple[Float[Tensor, "1 dim"], Float[Tensor, "dim dim"]]:
    """Mean m and matrix P such that (x - m) P has unit variances, columns by falling variance; in float64.

    ``exponent`` below 1 whitens less: the variances keep the power 1 - ``exponent``. Signs of columns are arbitrary.
    """
    x = descriptors.double()
    mean = x.mean(0, keepdim=True)
    covariance = (x - mean).T @ (x - mean) / len(x)
    variance, axes = torch.linalg.eigh((covariance + covariance.T) / 2)
    variance, axes = variance.flip(0).clamp(min=_SMALLEST_VARIANCE), axes.flip(1)
    return mean, axes * variance ** (-exponent / 2)


class Whitening(nn.Module):
    """(x - m) P, in the precision of m and P, given back in that of x."""

    m: Tensor
    p: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("m", torch.zeros(1, width, dtype=torch.float64))
        self.register_buffer("p", torch.eye(width, dtype=torch.float64))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Whitened vectors."""
        return ((x.to(self.m.dtype) - self.m) @ self.p).to(x.dtype)


class RetrievalHead(nn.Module):
    """Encoder tokens to local features and their strengths; names of tensors are those of the released files."""

    def __init__(
        self,
        token_width: int,
        hidden: tuple[int, ...] = (),
        residual: bool = False,
        prewhiten: bool = True,
        postwhiten: bool = False,
        kept: float = 300,
    ) -> None:
        """Build the head for tokens of ``token_width`` channels.

        ``hidden``: widths of the projector's layers, none for no projector; ``residual`` adds the projector's input to
        its output; ``kept``: how many features an image keeps, or from -1 to 0, which share of them (negated).
        """
        super().__init__()
        if residual and hidden and hidden[-1] != token_width:
            raise ValueError("a residual projector ends at the width it starts from")
        self.token_width, self.residual, self.kept = token_width, residual, kept
        self.width = hidden[-1] if hidden else token_width
        self.prewhiten = Whitening(token_width) if prewhiten else nn.Identity()
        self.projector = _projector(token_width, hidden)
        self.postwhiten = Whitening(self.width) if postwhiten else nn.Identity()

    def forward(
        self, tokens: Float[Tensor, "batch tokens token_width"]
    ) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch tokens"]]:
        """Local features, and how strong each is: its length before the second whitening."""
        x = self.prewhiten(tokens)
        if len(self.projector):
            x = self.projector(x) + x if self.residual else self.projector(x)
        return self.postwhiten(x), x.norm(dim=-1)

    def strongest(
        self, features: Float[Tensor, "batch tokens width"], strength: Float[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch kept width"], Float[Tensor, "batch kept"], Int[Tensor, "batch kept"]]:
        """The features to keep, strongest first, with their strengths and token indices."""
        tokens = strength.shape[1]
        count = int(-self.kept * tokens) if -1 <= self.kept < 0 else int(self.kept)
        best = strength.topk(min(count, tokens), dim=1)
        rows = torch.arange(len(features), device=features.device)[:, None]
        return features[rows, best.indices], best.values, best.indices

    @staticmethod
    def pooled(
        features: Float[Tensor, "batch tokens width"], strength: Float[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch width"]:
        """One unit vector an image: the sum of its features by strength."""
        return F.normalize((features * strength[..., None]).sum(1), dim=-1)

    @classmethod
    def from_state(
        cls, arguments: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str | Path
    ) -> "RetrievalHead":
        """The head of a released file: its training arguments and its tensors, with or without the encoder's.

        Raises:
            UserError: arguments or tensors that no such head has.
        """
        mine = {name: tensor for name, tensor in tensors.items() if not name.startswith("backbone")}
        first = next((mine[name] for name in ("prewhiten.m", "projector.0.weight") if name in mine), None)
        if first is None or first.dim() != 2:
            raise UserError(f"{source} holds no retrieval head; give released retrieval weights.")
        try:
            head = cls(
                token_width=first.shape[1],
                hidden=_widths(arguments.get("hdims") or ()),
                residual=bool(arguments.get("residual", False)),
                prewhiten=arguments.get("prewhiten") is not None,
                postwhiten=arguments.get("postwhiten") is not None,
                kept=float(arguments["nfeat"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{source} describes an impossible retrieval head ({error}); get it again.") from error
        if arguments.get("featweights", "l2norm") != "l2norm":
            raise UserError(f"{source} weighs features by {arguments['featweights']!r}; only l2norm is known.")
        load_tensors(head, mine, source)
        whitenings = {name: tensor.double() for name, tensor in mine.items() if "whiten." in name}
        head.load_state_dict(whitenings, strict=False, assign=True)
        return head


def _projector(width: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with LayerNorm and GELU between them."""
    layers: list[nn.Module] = []
    for k, out in enumerate(hidden):
        layers.append(nn.Linear(width, out))
        if k < len(hidden) - 1:
            layers += [nn.LayerNorm(out), nn.GELU()]
        width = out
    return nn.Sequential(*layers)


def _widths(value: Any) -> tuple[int, ...]:
    """Layer widths from a list or from text, ``512_256``."""
    pieces = value.split("_") if isinstance(value, str) else value
    widths = tuple(int(piece) for piece in pieces)
    if not all(0 < width <= _MAX_WIDTH for width in widths):
        raise ValueError(f"layers of {widths} channels")
    return widths
