"""SevenNet for many crystals at once, as a torch-sim model."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sevenn._keys as key
import torch
import torch_sim as ts
from druse_crystal.crystal import Crystal
from druse_crystal.manifest import file_hash
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.neighbors import torch_nl_linked_cell, torchsim_nl

from druse_energetics.edge_convolution import EdgeConvolution
from druse_energetics.potential import Evaluation, refuse_unknown_elements
from druse_energetics.weights import weights_path

ATOMS_PER_BATCH = {"cpu": 128, "cuda": 2048}


class SevenNetPotential:
    """SevenNet-0 or SevenNet-l3i5 with the weights of the installed ``sevenn`` package.

    Args:
        name: ``sevennet-0`` or ``sevennet-l3i5``.
        device: torch device.

    Raises:
        ValueError: if the installed package lacks the weights.
    """

    def __init__(self, name: str, *, device: torch.device):
        self.name = name
        self.model = SevenNetBatchModel(weights_path(name), device=device)
        self.elements = frozenset(int(z) for z in self.model.type_map or ())
        self.atoms_per_batch = ATOMS_PER_BATCH.get(device.type, 128)

    def energies(self, crystals: Sequence[Crystal]) -> Float64[np.ndarray, " b"]:
        """Total energies in eV per cell. Raises ValueError for an element it was not trained on."""
        return np.array([evaluation.energy for evaluation in self.evaluate(crystals)])

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Energies, forces and stresses. Raises ValueError for an element it was not trained on."""
        refuse_unknown_elements(self, crystals)
        evaluations = []
        for part in batches(crystals, self.atoms_per_batch):
            state = make_state(part, device=self.model.device)
            output = self.model(state)
            forces = output["forces"].split([c.num_atoms for c in part])
            for energy, force, stress in zip(output["energy"], forces, output["stress"], strict=True):
                evaluations.append(
                    Evaluation(
                        energy=float(energy),
                        forces=force.cpu().double().numpy(),
                        stress=stress.cpu().double().numpy(),
                    )
                )
        return evaluations

    def invariants(self, crystals: Sequence[Crystal]) -> list[Float32[np.ndarray, "_ c"]]:
        """What the network says of every atom in numbers that no rotation changes, (n, c) a crystal.

        After each interaction layer its scalar channels, and the lengths of its vectors and tensors: 1,024 numbers an
        atom for SevenNet-0. Raises ValueError for an element it was not trained on.
        """
        refuse_unknown_elements(self, crystals)
        of_crystals = []
        for part in batches(crystals, self.atoms_per_batch):
            of_atoms = self.model.invariants(make_state(part, device=self.model.device)).float().cpu()
            of_crystals += [x.numpy() for x in of_atoms.split([c.num_atoms for c in part])]
        return of_crystals

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file of weights."""
        return file_hash(weights_path(self.name))


class SevenNetBatchModel(ModelInterface):
    """A torch-sim model around a SevenNet checkpoint: one pass over all edges of all crystals.

    Args:
        checkpoint: path of the ``.pth`` file.
        device: torch device.
    """

    def __init__(self, checkpoint: Path, *, device: torch.device):
        from sevenn.nn.convolution import IrrepsConvolution
        from sevenn.util import load_checkpoint

        super().__init__()
        network = load_checkpoint(str(checkpoint)).build_model()
        network.eval_type_map = True
        network.set_is_batch_data(True)
        network.requires_grad_(False)
        if device.type == "cpu":
            for name, layer in list(network.named_children()):
                if isinstance(layer, IrrepsConvolution):
                    network.replace_module(name, EdgeConvolution(layer))
        self.network = network.to(device=device, dtype=torch.float32).eval()
        self.type_map = network.type_map
        self.cutoff = torch.tensor(network.cutoff, device=device)
        # torch-sim's own choice would compile a kernel at first use, which takes seconds on a CPU and saves none
        self.neighbor_list: Any = torch_nl_linked_cell if device.type == "cpu" else torchsim_nl
        self._device, self._dtype = device, torch.float32
        self._compute_forces = self._compute_stress = True
        self._memory_scales_with = "n_atoms_x_density"
        self.implemented_properties = ["energy", "forces", "stress"]

    def forward(self, state: ts.SimState, **_kwargs) -> dict[str, Tensor]:
        """Energy (b,) in eV, forces (n, 3) in eV/Å and stress (b, 3, 3) in eV/Å³ of every crystal in the state."""
        data = self._graph(state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output = self.network(data)
        xx, yy, zz, xy, yz, zx = output[key.PRED_STRESS].unbind(-1)
        stress = -torch.stack([xx, xy, zx, xy, yy, yz, zx, yz, zz], dim=-1).view(-1, 3, 3)
        return {
            "energy": output[key.PRED_TOTAL_ENERGY].detach().view(-1),
            "forces": output[key.PRED_FORCE].detach(),
            "stress": stress.detach(),
        }

    @torch.no_grad()
    def invariants(self, state: ts.SimState) -> Float[Tensor, "n c"]:
        """Scalars, and lengths of vectors and tensors, of every atom after each interaction layer."""
        from sevenn.nn.equivariant_gate import EquivariantGate

        layers = list(self.network)
        last = max(i for i, layer in enumerate(layers) if isinstance(layer, EquivariantGate))
        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = self.network._preprocess(self._graph(state))
            for layer in layers[: last + 1]:
                data = layer(data)
                if isinstance(layer, EquivariantGate):
                    found += _invariants(data[key.NODE_FEATURE], layer.gate.irreps_out)
        return torch.cat(found, dim=1)

    def _graph(self, state: ts.SimState) -> dict[str, Any]:
        """The state with its edges, as the network takes it."""
        cells = state.row_vector_cell
        edges, edge_system, images = self.neighbor_list(
            state.positions, cells, state.pbc, self.cutoff, state.system_idx
        )
        shifts = torch.einsum("ei,eij->ej", images.to(cells.dtype), cells[edge_system])
        edge_vectors = state.positions[edges[1]] - state.positions[edges[0]] + shifts
        return {
            key.NODE_FEATURE: state.atomic_numbers.long(),
            key.ATOMIC_NUMBERS: state.atomic_numbers.long(),
            key.POS: state.positions,
            key.EDGE_IDX: edges,
            key.EDGE_VEC: edge_vectors,
            key.CELL: cells,
            key.CELL_VOLUME: torch.linalg.det(cells).abs(),
            key.NUM_ATOMS: state.n_atoms_per_system,
            key.BATCH: state.system_idx.long(),
            key.INFO: {},
        }


def make_state(crystals: Sequence[Crystal], *, device: torch.device) -> ts.SimState:
    """A torch-sim state of many crystals (torch-sim keeps lattice vectors as columns)."""
    counts = torch.tensor([c.num_atoms for c in crystals])
    return ts.SimState(
        positions=torch.as_tensor(np.concatenate([c.cart_coords for c in crystals]), dtype=torch.float32).to(device),
        masses=torch.ones(int(counts.sum()), dtype=torch.float32, device=device),
        cell=torch.as_tensor(np.stack([c.lattice.T for c in crystals]), dtype=torch.float32).to(device),
        pbc=True,
        atomic_numbers=torch.as_tensor(np.concatenate([c.atomic_numbers for c in crystals])).to(device),
        system_idx=torch.repeat_interleave(torch.arange(len(crystals)), counts).to(device),
    )


def batches(crystals: Sequence[Crystal], max_atoms: int):
    """Consecutive runs of crystals with at most ``max_atoms`` atoms together (or one larger crystal alone)."""
    part: list[Crystal] = []
    for crystal in crystals:
        if part and sum(c.num_atoms for c in part) + crystal.num_atoms > max_atoms:
            yield part
            part = []
        part.append(crystal)
    if part:
        yield part


def _invariants(features: Float[Tensor, "n x"], irreps: Any) -> list[Float[Tensor, "n _"]]:
    """A block for each of the e3nn irreps: scalars as they are, the lengths of vectors and tensors."""
    blocks = []
    for (channels, irrep), where in zip(irreps, irreps.slices(), strict=True):
        block = features[:, where].reshape(len(features), channels, irrep.dim)
        blocks.append(block[..., 0] if irrep.is_scalar() else block.norm(dim=-1))
    return blocks
