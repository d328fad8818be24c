"""Many crystals relaxing at once: torch-sim's FIRE, with the next crystal taking the place of a finished one."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
import torch_sim as ts
from druse_crystal.crystal import Crystal
from torch_sim.optimizers.fire import fire_init, fire_step

from druse_energetics.potential import silence
from druse_energetics.relaxation import (
    ENERGY_PER_ATOM,
    MAX_INITIAL_FORCE,
    VOLUME_PER_ATOM,
    OnResult,
    Relaxation,
    finished,
    refusal,
    unusable,
)
from druse_energetics.sevennet import SevenNetPotential, make_state

# torch-sim halves the time step of a crystal that joins others, and not of one that starts alone; starting every
# crystal with velocity zero and twice ASE's first time step makes both the same, and both equal to ASE
FIRST_TIME_STEP = 0.2


class BatchRelaxer:
    """Relax crystals with a SevenNet, up to ``atoms_per_batch`` atoms at a time.

    Args:
        potential: a loaded SevenNet.
        fmax: eV/Å.
        max_steps: steps allowed for each crystal.
        atoms_per_batch: atoms that relax at the same time.
    """

    def __init__(
        self, potential: SevenNetPotential, *, fmax: float, max_steps: int, atoms_per_batch: int | None = None
    ):
        self.name = potential.name
        self.potential = potential
        self.fmax = fmax
        self.max_steps = max_steps
        self.atoms_per_batch = atoms_per_batch or potential.atoms_per_batch

    def __call__(self, crystals: Sequence[Crystal], *, on_result: OnResult | None = None) -> list[Relaxation]:
        """Relax; see ``Relaxer``."""
        results: list[Relaxation | None] = [None] * len(crystals)

        def report(index: int, result: Relaxation) -> None:
            results[index] = result
            if on_result is not None:
                on_result(index, result)

        waiting = deque()
        for index, crystal in enumerate(crystals):
            if (refused := refusal(crystal, self.potential)) is not None:
                report(index, refused)
            else:
                waiting.append(index)
        with silence():
            batch = _Batch(self, crystals)
            while waiting or batch.indices:
                try:
                    finished = batch.advance(waiting)
                except Exception:  # an error of the potential names no crystal: give each of the batch its own try
                    for index in batch.indices:
                        report(index, self._alone(crystals, index))
                    batch = _Batch(self, crystals)
                    continue
                for index, result in finished:
                    report(index, result)
        return results  # ty: ignore[invalid-explicit-return]

    def _alone(self, crystals: Sequence[Crystal], index: int) -> Relaxation:
        batch, waiting = _Batch(self, crystals), deque([index])
        try:
            while not (finished := batch.advance(waiting)):
                pass
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            return unusable("failed", f"{self.name} failed on it: {type(error).__name__}: {text}")
        return finished[0][1]


class _Batch:
    """The crystals that relax at present: one torch-sim state, and the index, steps and first energy of each."""

    def __init__(self, relaxer: BatchRelaxer, crystals: Sequence[Crystal]):
        self.relaxer = relaxer
        self.model = relaxer.potential.model
        self.crystals = crystals
        self.indices: list[int] = []
        self.initial_energies: list[float] = []
        self.n_steps: list[int] = []
        self.state: Any = None  # a torch-sim CellFireState, whose fields are made at run time

    def advance(self, waiting: deque[int]) -> list[tuple[int, Relaxation]]:
        """One step of those that are under way, then let others join; returns index and result of the finished ones."""
        if self.indices:
            self.state = fire_step(self.state, self.model)
            self.n_steps = [n + 1 for n in self.n_steps]
        self._fill(waiting)
        return self._retire()

    def _fill(self, waiting: deque[int]) -> None:
        room = self.relaxer.atoms_per_batch - sum(self.crystals[i].num_atoms for i in self.indices)
        joining: list[int] = []
        while waiting and (self.crystals[waiting[0]].num_atoms <= room or not (self.indices or joining)):
            joining.append(waiting.popleft())
            room -= self.crystals[joining[-1]].num_atoms
        if not joining:
            return
        # known before anything can go wrong, so that an error of the model loses no crystal
        present = list(self.indices)
        self.indices = present + joining
        start = make_state([self.crystals[i] for i in joining], device=self.model.device)
        new = fire_init(start, self.model, dt_start=FIRST_TIME_STEP, cell_filter=ts.CellFilter.frechet)
        new.velocities = torch.zeros_like(new.velocities)
        new.cell_velocities = torch.zeros_like(new.cell_velocities)
        self.state = new if not present else ts.concatenate_states([self.state, new])
        self.initial_energies += new.energy.tolist()
        self.n_steps += [0] * len(joining)

    def _retire(self) -> list[tuple[int, Relaxation]]:
        max_force, suspicious = self._inspect()
        relaxer = self.relaxer
        leaving: dict[int, Relaxation] = {}
        for k, force in enumerate(max_force):
            if force > relaxer.fmax and self.n_steps[k] < relaxer.max_steps and not suspicious[k]:
                continue
            atoms = self.state.system_idx == k
            result = finished(
                lattice=self.state.row_vector_cell[k].cpu().double().numpy(),
                cart_coords=self.state.positions[atoms].cpu().double().numpy(),
                atomic_numbers=self.state.atomic_numbers[atoms].cpu().numpy(),
                energy=float(self.state.energy[k]),
                initial_energy=self.initial_energies[k],
                max_force=force,
                n_steps=self.n_steps[k],
                fmax=relaxer.fmax,
                max_steps=relaxer.max_steps,
            )
            if result is not None:
                leaving[k] = result
        left = [(self.indices[k], result) for k, result in leaving.items()]
        if leaving:
            staying = [k for k in range(len(self.indices)) if k not in leaving]
            self.state = self.state[staying] if staying else None
            self.indices = [self.indices[k] for k in staying]
            self.initial_energies = [self.initial_energies[k] for k in staying]
            self.n_steps = [self.n_steps[k] for k in staying]
        return left

    def _inspect(self) -> tuple[list[float], list[bool]]:
        """Largest force of each crystal (as ASE's filter measures it), and whether it may have exploded."""
        state = self.state
        n = len(self.indices)
        on_atoms = torch.zeros(n, device=state.device).scatter_reduce(
            0, state.system_idx.long(), state.deform_grad_forces().norm(dim=1), reduce="amax"
        )
        on_cell = state.cell_forces.norm(dim=2).amax(dim=1)
        max_force = torch.maximum(on_atoms, on_cell)
        atoms = state.n_atoms_per_system
        volume = torch.linalg.det(state.row_vector_cell).abs() / atoms
        energy = state.energy / atoms
        sound = torch.isfinite(max_force) & torch.isfinite(energy) & torch.isfinite(on_atoms)
        sound &= (volume >= VOLUME_PER_ATOM[0]) & (volume <= VOLUME_PER_ATOM[1])
        sound &= (energy >= ENERGY_PER_ATOM[0]) & (energy <= ENERGY_PER_ATOM[1])
        sound &= max_force <= MAX_INITIAL_FORCE
        return max_force.tolist(), (~sound).tolist()
