"""What a released MoGe file says of its network, checked before anything is built from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from unposed.errors import UserError
from unposed.nets.conv_blocks import NORMS, RESAMPLERS
from unposed.nets.dinov2 import DinoV2Config

Remap = Literal["linear", "sinh", "exp", "sinh_exp"]
LEVELS = 5
_MAX_CHANNELS = 4096
_MAX_BLOCKS = 16
_PIXELS_PER_TOKEN = 196
_LEGACY = {"output_mask", "split_head"}


@dataclass(frozen=True)
class MogeV1Config:
    """MoGe (section 3.1 and supplement): DINOv2, three upsampling stages, two output branches."""

    encoder: DinoV2Config
    taps: tuple[int, ...]
    """Blocks whose features are used, from 0."""
    dim_proj: int = 512
    dim_upsample: tuple[int, ...] = (256, 128, 128)
    dim_times_res_block_hidden: int = 1
    num_res_blocks: int = 1
    remap_output: Remap = "exp"
    res_block_norm: str = "group_norm"
    num_tokens_range: tuple[int, int] = (1200, 2500)
    last_res_blocks: int = 0
    last_conv_channels: int = 32
    last_conv_size: int = 1
    mask_threshold: float = 0.5


@dataclass(frozen=True)
class StackConfig:
    """One pyramid of convolutions: what goes in, what comes out, and what is between, by level from coarse to fine."""

    dim_in: tuple[int | None, ...]
    dim_out: tuple[int | None, ...]
    dim_res_blocks: tuple[int, ...]
    num_res_blocks: tuple[int, ...]
    resamplers: tuple[str, ...]
    """From each level to the next, one less than there are levels."""
    res_block_in_norm: str = "none"
    res_block_hidden_norm: str = "none"


@dataclass(frozen=True)
class MogeV2Config:
    """MoGe-2 (section 3): DINOv2, a neck, and a head for each output that the file has."""

    encoder: DinoV2Config
    taps: tuple[int, ...]
    dim_out: int
    """Channels of the summed encoder features."""
    neck: StackConfig
    heads: Mapping[str, StackConfig]
    """By name: points, mask, normal."""
    scale_dims: tuple[int, ...] | None
    remap_output: Remap = "linear"
    num_tokens_range: tuple[int, int] = (1200, 3600)
    mask_threshold: float = 0.5


def parse_config(model_config: Any) -> MogeV1Config | MogeV2Config:
    """The configuration in a released file; its ``encoder`` is a name in MoGe-1, a table in MoGe-2.

    Raises:
        UserError: it is of another model or a newer version, or impossible.
    """
    if not isinstance(model_config, Mapping) or "encoder" not in model_config:
        raise UserError("This MoGe checkpoint does not say how its network is built; give a released file.")
    try:
        return _parse_v1(model_config) if isinstance(model_config["encoder"], str) else _parse_v2(model_config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"The configuration of this MoGe checkpoint is damaged or not known ({error}).") from error


def _parse_v1(given: Mapping[str, Any]) -> MogeV1Config:
    values = {key: _frozen(value) for key, value in given.items() if key not in _LEGACY}
    area = values.pop("trained_area_range", None)
    if area is not None:  # in early files pixels stand for tokens
        values["num_tokens_range"] = tuple(int(pixels) // _PIXELS_PER_TOKEN for pixels in area)
    encoder = _backbone(values.pop("encoder"))
    taps = _taps(values.pop("intermediate_layers", 4), encoder)
    _refuse_unknown(values, {field.name for field in fields(MogeV1Config)} - {"encoder", "taps"})
    config = MogeV1Config(encoder, taps, **values)
    _check_channels((config.dim_proj, *config.dim_upsample, config.last_conv_channels))
    _check_counts((config.num_res_blocks, config.dim_times_res_block_hidden, config.last_res_blocks))
    _check(len(config.dim_upsample) == 3 and config.last_conv_size in (1, 3), "its head has another form")
    _check(config.res_block_norm in NORMS, f"no norm {config.res_block_norm!r}")
    _check_outputs(config)
    return config


def _parse_v2(given: Mapping[str, Any]) -> MogeV2Config:
    known = {"encoder", "neck", "scale_head", "remap_output", "num_tokens_range"}
    heads = {"points": "points_head", "mask": "mask_head", "normal": "normal_head"}
    _refuse_unknown(given, known | set(heads.values()))
    part = dict(given["encoder"])
    encoder = _backbone(part.pop("backbone"))
    taps, dim_out = _taps(part.pop("intermediate_layers"), encoder), part.pop("dim_out")
    _refuse_unknown(part, set())
    scale = given.get("scale_head")
    config = MogeV2Config(
        encoder=encoder,
        taps=taps,
        dim_out=dim_out,
        neck=_stack(given["neck"]),
        heads={name: _stack(given[key]) for name, key in heads.items() if given.get(key) is not None},
        scale_dims=None if scale is None else tuple(scale["dims"]),
        remap_output=given.get("remap_output", "linear"),
        num_tokens_range=_frozen(given.get("num_tokens_range", (1200, 3600))),
    )
    _check_channels((dim_out, *(config.scale_dims or ())))
    _check("points" in config.heads, "it has no head for points")
    _check_outputs(config)
    return config


def _stack(given: Mapping[str, Any]) -> StackConfig:
    values = {key: _frozen(value) for key, value in given.items()}
    _refuse_unknown(values, {field.name for field in fields(StackConfig)})
    for name in ("dim_in", "dim_out", "num_res_blocks"):
        if not isinstance(values[name], tuple):
            values[name] = (values[name],) * LEVELS
    if isinstance(values["resamplers"], str):
        values["resamplers"] = (values["resamplers"],) * (LEVELS - 1)
    config = StackConfig(**values)
    sizes = [len(x) for x in (config.dim_in, config.dim_out, config.dim_res_blocks, config.num_res_blocks)]
    _check(sizes == [LEVELS] * 4 and len(config.resamplers) == LEVELS - 1, "a pyramid has another number of levels")
    _check_channels([c for c in (*config.dim_in, *config.dim_out) if c is not None] + list(config.dim_res_blocks))
    _check_counts(config.num_res_blocks)
    _check(set(config.resamplers) <= set(RESAMPLERS), f"no resampler among {sorted(set(config.resamplers))}")
    _check({config.res_block_in_norm, config.res_block_hidden_norm} <= set(NORMS), "no such norm")
    return config


def _backbone(name: Any) -> DinoV2Config:
    config = DinoV2Config.named(name)
    if config is None:
        raise ValueError(f"no encoder {name!r}")
    return config


def _taps(given: Any, encoder: DinoV2Config) -> tuple[int, ...]:
    """The blocks whose features are used: a list, or a number that means the last so many."""
    if type(given) is int:
        given = range(encoder.depth - given, encoder.depth)
    taps = tuple(given)
    _check(
        bool(taps)
        and all(type(tap) is int and 0 <= tap < encoder.depth for tap in taps)
        and sorted(set(taps)) == [*taps],
        f"no encoder blocks {taps}",
    )
    return taps


def _check_outputs(config: MogeV1Config | MogeV2Config) -> None:
    _check(config.remap_output in get_args(Remap), f"no output map {config.remap_output!r}")
    tokens = config.num_tokens_range
    _check(len(tokens) == 2 and all(type(n) is int for n in tokens) and 0 < tokens[0] <= tokens[1], "no tokens")


def _check_channels(channels: Sequence[Any]) -> None:
    _check(all(type(c) is int and 0 < c <= _MAX_CHANNELS for c in channels), "impossible numbers of channels")


def _check_counts(counts: Sequence[Any]) -> None:
    _check(all(type(c) is int and 0 <= c <= _MAX_BLOCKS for c in counts), "impossible numbers of blocks")


def _check(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _refuse_unknown(values: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(map(str, values)) - known)
    if unknown:
        raise UserError(f"The configuration has {unknown[0]!r}, which this version of MoGe does not know.")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
