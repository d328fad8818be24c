"""Linear fits that a few wild values do not decide."""

import numpy as np
from jaxtyping import Float64

_MAX_ROUNDS = 100


def huber_fit(
    design: Float64[np.ndarray, "b k"], target: Float64[np.ndarray, " b"], *, width: float, ridge: float = 0.0
) -> Float64[np.ndarray, " k"]:
    """Least squares with Huber's loss, by iterated weights; smallest coefficients where the data decide nothing.

    Args:
        design: (b, k) features.
        target: (b,).
        width: remainders larger than this count linearly.
        ridge: penalty on the squares of the coefficients.

    Returns:
        (k,) coefficients.
    """
    penalty = np.sqrt(ridge) * np.eye(design.shape[1]) if ridge else np.empty((0, design.shape[1]))
    weights = np.ones(len(target))
    solution = np.zeros(design.shape[1])
    for _ in range(_MAX_ROUNDS):
        root = np.sqrt(weights)
        rows = np.concatenate([design * root[:, None], penalty])
        new = np.linalg.lstsq(rows, np.concatenate([target * root, np.zeros(len(penalty))]), rcond=1e-10)[0]
        weights = 1.0 / np.maximum(1.0, np.abs(target - design @ new) / width)
        if np.abs(new - solution).max() < 1e-5:
            return new
        solution = new
    return solution
