"""One crystal after the other through ASE, for potentials that torch-sim does not know."""

from collections.abc import Sequence

import numpy as np
from druse_crystal.crystal import Crystal

from druse_energetics.chgnet import CHGNetPotential
from druse_energetics.potential import silence
from druse_energetics.relaxation import OnResult, Relaxation, finished, refusal, unusable


class SerialRelaxer:
    """Relax crystals with ASE's FIRE and Frechet cell filter.

    Args:
        potential: a loaded CHGNet.
        fmax: eV/Å.
        max_steps: steps allowed for each crystal.
    """

    def __init__(self, potential: CHGNetPotential, *, fmax: float, max_steps: int):
        self.name = potential.name
        self.potential = potential
        self.fmax = fmax
        self.max_steps = max_steps

    def __call__(self, crystals: Sequence[Crystal], *, on_result: OnResult | None = None) -> list[Relaxation]:
        """Relax; see ``Relaxer``."""
        results = []
        with silence():
            calculator = self.potential.calculator()
            for index, crystal in enumerate(crystals):
                result = refusal(crystal, self.potential)
                if result is None:
                    try:
                        result = self._relax(crystal, calculator)
                    except Exception as error:  # whatever the graph builder or the network raised is this crystal's
                        text = " ".join(str(error).split())[:200]
                        message = f"{self.name} failed on it: {type(error).__name__}: {text}"
                        result = unusable("failed", message)
                results.append(result)
                if on_result is not None:
                    on_result(index, result)
        return results

    def _relax(self, crystal: Crystal, calculator) -> Relaxation:
        from ase import Atoms
        from ase.filters import FrechetCellFilter
        from ase.optimize import FIRE

        atoms = Atoms(
            numbers=crystal.atomic_numbers, cell=crystal.lattice, scaled_positions=crystal.frac_coords, pbc=True
        )
        atoms.calc = calculator
        initial_energy = float(atoms.get_potential_energy())
        filtered = FrechetCellFilter(atoms)
        optimiser = FIRE(filtered, logfile=None)
        result = None
        # ASE yields once for the first geometry and once after every step
        for n_steps, _ in enumerate(optimiser.irun(fmax=self.fmax, steps=self.max_steps)):
            result = finished(
                lattice=np.array(atoms.cell),
                cart_coords=atoms.positions,
                atomic_numbers=atoms.numbers,
                energy=float(atoms.get_potential_energy()),
                initial_energy=initial_energy,
                max_force=float(np.linalg.norm(filtered.get_forces(), axis=1).max()),
                n_steps=n_steps,
                fmax=self.fmax,
                max_steps=self.max_steps,
            )
            if result is not None:
                return result
        raise RuntimeError("the optimiser stopped early")
