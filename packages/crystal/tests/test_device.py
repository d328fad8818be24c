"""The device that was asked for."""

import pytest
import torch
from druse_crystal.device import find_device, in_float64


class AppleTensor(torch.Tensor):
    """Stands on a device that refuses float64, as Apple GPUs do."""

    device = torch.device("mps")  # type: ignore[assignment]

    def cpu(self, *_, **__):
        return self.as_subclass(torch.Tensor)

    def double(self, *_, **__):
        raise TypeError("no float64 on this device")


def test_the_processor_is_found():
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu"])
def test_other_devices_are_refused(name):
    with pytest.raises(ValueError, match="cpu"):
        find_device(name)


def test_float64_comes_from_the_processor_where_the_device_has_none():
    x = torch.tensor([0.1, 0.25])
    assert in_float64(x).dtype == torch.float64
    assert torch.equal(in_float64(x.as_subclass(AppleTensor)), x.double())
