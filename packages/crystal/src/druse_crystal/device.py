"""The torch device that a user asked for, and what it can do."""

import torch
from torch import Tensor


def find_device(name: str | torch.device) -> torch.device:
    """The device of a name such as ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        ValueError: if there is no such device in this machine.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no torch device; use for example 'cpu' or 'cuda'") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(f"device {str(device)!r} was asked for, but torch sees {count} CUDA devices; use 'cpu'")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError("device 'mps' was asked for, but torch sees no Apple GPU; use 'cpu'")
    elif device.type != "cpu":
        raise ValueError(f"{str(device)!r} is no device that Druse runs on; use 'cpu', 'cuda' or 'mps'")
    return device


def in_float64(x: Tensor) -> Tensor:
    """``x`` in float64: on its own device, or on the CPU if that has no such numbers (Apple GPUs)."""
    return (x.cpu() if x.device.type == "mps" else x).double()
