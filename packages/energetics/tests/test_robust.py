"""Fits that a few wild values do not decide."""

import numpy as np
import pytest
from druse_energetics.robust import huber_fit
from scipy.optimize import minimize
from scipy.special import huber


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_minimum_of_the_loss(ridge):
    rng = np.random.default_rng(0)
    design = rng.normal(size=(60, 3))
    target = design @ [1.0, -2.0, 0.5] + 0.02 * rng.normal(size=60)
    target[:6] += 5.0  # wild
    found = huber_fit(design, target, width=0.05, ridge=ridge)

    def loss(solution):
        return huber(0.05, target - design @ solution).sum() + 0.5 * ridge * (solution**2).sum()

    expected = minimize(loss, np.zeros(3), method="BFGS").x
    assert found == pytest.approx(expected, abs=1e-3)
    if not ridge:
        assert found == pytest.approx([1.0, -2.0, 0.5], abs=0.03)


def test_what_the_data_do_not_decide_is_zero():
    assert huber_fit(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1.0, 2.0]), width=1.0) == pytest.approx([1.0, 0.0])
