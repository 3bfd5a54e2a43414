"""The one place that decides in which number format a network computes.

Encoders and decoders may run in bfloat16; the sum through their blocks, norms and dense heads stay float32 always.
"""

import torch
from torch import nn

from unposed.errors import UserError
from unposed.hardware import fast_bfloat16
from unposed.nets.transformer import Linear, PatchEmbed

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"There is no device {name!r} here; use auto, cpu or cuda.") from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the processor multiplies it faster than float32, else float32.

    Raises:
        UserError: another name than auto, float32 or bfloat16.
    """
    if name == "auto":
        return torch.bfloat16 if fast_bfloat16(device) else torch.float32
    if name not in _DTYPES:
        raise UserError(f"No number format {name!r}; use auto, {' or '.join(_DTYPES)}.")
    return _DTYPES[name]


def prepare_for_inference(network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Put ``network`` on ``device``, its transformer layers into ``dtype``; norms and heads stay float32."""
    network.eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, Linear | PatchEmbed):
            layer.to(dtype)
    network.to(device)
    for parameter in network.parameters():
        if parameter.ndim == 4:  # kernels of convolutions
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
