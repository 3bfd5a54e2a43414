"""What the processor is good at."""

import torch


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices faster in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # absent before torch 2.10
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
