"""What the processor is good at."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


def in_parallel(function: Callable[[_Part], _Result], parts: Sequence[_Part]) -> list[_Result]:
    """Results in order; every processor works on a part of its own, by operations that are not split further.

    For many small operations: where each is split over the processors, they wait for one another at its end, and on a
    busy machine that takes many times as long as the work (measured: ten times).
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) == 1:
        return [function(part) for part in parts]
    torch.set_num_threads(1)  # new threads take it over
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, parts))
    finally:
        torch.set_num_threads(threads)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices faster in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # absent before torch 2.10
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
