"""Products of the published network in one pass."""

import copy

import pytest
import torch
from druse_scores.gemnet import fused
from druse_scores.gemnet.layers import Dense, Residual

pytestmark = pytest.mark.skipif(not fused.is_fused_here(), reason="no oneDNN on this processor")


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(300, 32)


@pytest.mark.parametrize("layer", [Dense(32, 48), Dense(32, 48, active=True), Residual(32)])
@pytest.mark.parametrize(("mixed", "tolerance"), [(False, 1e-5), (True, 2e-2)])
def test_layers_are_those_of_training(layer: torch.nn.Module, mixed: bool, tolerance: float, x: torch.Tensor):
    """Without gradients in one pass, with them in several: the same numbers."""
    several = layer(x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert fused.is_fused(x) or (mixed and not fused.packs_bfloat16())
        one = layer(x)
    assert one.dtype == (torch.bfloat16 if mixed and isinstance(layer, Dense) else one.dtype)
    torch.testing.assert_close(one.float(), several, atol=tolerance * float(several.detach().abs().max()), rtol=0)


@pytest.mark.parametrize("change", ["step", "load", "data"])
def test_changed_weights_are_seen(change: str, x: torch.Tensor):
    layer = Dense(32, 32, active=True)

    def answer() -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return layer(x)

    before = answer()
    if change == "step":
        with torch.no_grad():
            layer.linear.weight.mul_(2)
    elif change == "load":
        layer.load_state_dict({"linear.weight": 2 * layer.linear.weight.detach()})
    else:
        layer.train()
        layer.linear.weight.data.mul_(2)
        layer.eval()
    assert not torch.allclose(answer(), before)
    fresh = copy.deepcopy(layer)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(fresh(x), answer())


def test_other_weights_are_seen(x: torch.Tensor):
    """Tensors that come and go may get each other's place in memory."""
    layer, answers = Dense(32, 32), []
    weight = layer.linear.weight.detach()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for k in range(1, 20):
            found = torch.func.functional_call(layer, {"linear.weight": weight * k}, (x,))
            answers.append(float(found.float().abs().mean()) / k)
    assert min(answers) == pytest.approx(max(answers), rel=0.02)


def test_weights_made_for_inference(x: torch.Tensor):
    with torch.inference_mode():
        layer = Dense(32, 32)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(layer(x)).all()


def test_what_is_not_fused(x: torch.Tensor):
    """Gradients, doubles, no rows: torch's own products."""
    assert not fused.is_fused(x)
    with torch.no_grad():
        assert not fused.is_fused(x.double())
        assert not fused.is_fused(x[:0])
        assert Dense(32, 8, active=True)(x[:0]).shape == (0, 8)
        with torch.autocast("cpu", torch.float16):
            assert not fused.is_fused(x)
        with torch.backends.mkldnn.flags(enabled=False):
            assert not fused.is_fused(x)
