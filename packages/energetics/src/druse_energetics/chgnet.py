"""CHGNet with the weights of its wheel."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from ase.units import GPa
from druse_crystal.crystal import Crystal
from jaxtyping import Float64

from druse_energetics.potential import Evaluation, refuse_unknown_elements, silence

CRYSTALS_PER_BATCH = 16


class CHGNetPotential:
    """CHGNet 0.3.0: energies (in the MP2020-corrected frame), forces, stresses, and magnetic moments.

    Args:
        device: torch device.
    """

    name = "chgnet"
    elements = frozenset(range(1, 95)) - frozenset(range(84, 89))  # what MPtrj, its training set, holds

    def __init__(self, *, device: torch.device):
        from chgnet.model import CHGNet

        self.model = CHGNet.load(model_name="0.3.0", use_device=str(device), verbose=False)

    def energies(self, crystals: Sequence[Crystal]) -> Float64[np.ndarray, " b"]:
        """Total energies in eV per cell. Raises ValueError for an element it was not trained on."""
        predictions = self._predict(crystals, "e")
        return np.array([float(p["e"]) * c.num_atoms for p, c in zip(predictions, crystals, strict=True)])

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Energies, forces and stresses. Raises ValueError for an element it was not trained on."""
        return [
            Evaluation(
                energy=float(prediction["e"]) * crystal.num_atoms,
                forces=np.asarray(prediction["f"], dtype=np.float64).reshape(-1, 3),
                stress=np.asarray(prediction["s"], dtype=np.float64).reshape(3, 3) * GPa,
            )
            for prediction, crystal in zip(self._predict(crystals, "efs"), crystals, strict=True)
        ]

    def magnetic_moments(self, crystals: Sequence[Crystal]) -> list[Float64[np.ndarray, " n"]]:
        """Absolute magnetic moments of the atoms in µB, an array a crystal."""
        return [np.asarray(p["m"], dtype=np.float64).reshape(-1) for p in self._predict(crystals, "em")]

    def calculator(self):
        """An ASE calculator of this model."""
        from chgnet.model.dynamics import CHGNetCalculator

        return CHGNetCalculator(self.model, use_device=str(next(self.model.parameters()).device))

    def _predict(self, crystals: Sequence[Crystal], task: Literal["e", "em", "efs"]) -> list[dict]:
        from druse_crystal.convert import to_pymatgen

        if not crystals:
            return []
        refuse_unknown_elements(self, crystals)
        structures = [to_pymatgen(crystal) for crystal in crystals]
        with silence():
            predictions = self.model.predict_structure(structures, task=task, batch_size=CRYSTALS_PER_BATCH)
        return [predictions] if isinstance(predictions, dict) else predictions
