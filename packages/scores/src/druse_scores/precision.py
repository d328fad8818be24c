"""Which hardware multiplies bfloat16 matrices."""

import torch

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # torch's names for x86 (the first two) and ARM


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16 matrices.

    Without them torch emulates: on a processor with AVX2 alone such a product took 50 times as long as in float32.
    """
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in _INSTRUCTIONS)
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
