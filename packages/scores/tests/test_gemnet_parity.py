"""The published network: outputs, gradients and graphs against recordings of the published code."""

import json
from pathlib import Path

import pytest
import torch
from ase.data import atomic_numbers
from druse_crystal import CrystalBatch
from druse_diffusion import Conditions
from druse_scores.gemnet import GemNet
from druse_scores.gemnet.graph import nearest
from druse_scores.gemnet.published import network_of
from safetensors import safe_open

DATA = Path(__file__).parent / "data"
CASES = ("conditional", "unconditional", "mixed", "fields_absent")


class Recording:
    """Tensors of one recording, its network and its crystals."""

    def __init__(self, name: str):
        with safe_open(DATA / f"published_gemnet_{name}.safetensors", "pt") as file:
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dictionary
            self.facts = json.loads(file.metadata()["facts"])

    def network(self, dtype: torch.dtype) -> GemNet:
        states = {k.removeprefix("state_dict/"): v for k, v in self.tensors.items() if k.startswith("state_dict/")}
        return network_of(states).to(dtype)

    def crystals(self, dtype: torch.dtype) -> CrystalBatch:
        return CrystalBatch(
            lattice=self.tensors["in/cell"].to(dtype),
            frac_coords=self.tensors["in/frac"].to(dtype),
            atomic_numbers=self.tensors["in/z"],
            num_atoms=self.tensors["in/num_atoms"],
        )

    def conditions(self, case: str, network: GemNet, dtype: torch.dtype) -> Conditions:
        if case == "fields_absent":
            return Conditions()
        values, given = {}, {}
        for known in network.config.properties:
            if known.kind == "chemical_system":
                rows = torch.zeros(5, 100, dtype=dtype)
                for row, system in zip(rows, self.facts["chemical_system"], strict=True):
                    row[[atomic_numbers[symbol] - 1 for symbol in system.split("-")]] = 1
                values[known.name] = rows
            else:
                raw = self.tensors[f"prop/{known.name}"]
                if known.is_number:
                    raw = raw.to(dtype)
                    raw = ((raw.log10() if known.kind == "log_scalar" else raw) - known.mean) / known.std
                values[known.name] = raw
            hidden = torch.full((5,), case == "unconditional")
            if case == "mixed":
                hidden = self.tensors[f"mixed_mask_use_unconditional/{known.name}"].squeeze(-1)
            given[known.name] = ~hidden
        return Conditions(values=values, given=given)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.detach().double() - theirs.double()).abs().max() / theirs.double().abs().max())


def compare(prediction, recording: Recording, out: str) -> dict[str, float]:
    pairs = {"pos": prediction.frac_coords, "cell": prediction.lattice, "logits": prediction.species_logits}
    return {name: relative_error(value, recording.tensors[f"{out}/{name}"]) for name, value in pairs.items()}


@pytest.fixture(scope="module")
def small():
    return Recording("small")


@pytest.mark.parametrize(("dtype", "tag", "limit"), [(torch.float64, 64, 1e-12), (torch.float32, 32, 1e-4)])
def test_outputs(small, dtype, tag, limit, capsys):
    network = small.network(dtype)
    errors = compare(network(small.crystals(dtype), small.tensors["in/t"].to(dtype)), small, f"out{tag}")
    tell(capsys, f"outputs, float{tag}", errors)
    assert max(errors.values()) < limit


@pytest.mark.parametrize(("dtype", "tag", "limit"), [(torch.float64, 64, 1e-12), (torch.float32, 32, 1e-4)])
@pytest.mark.parametrize("name", ["cond_small", "ctrl_small"])
def test_outputs_with_properties(name, dtype, tag, limit, capsys):
    """Properties beside the time (cond) and in adapters (ctrl), told and not told, for all crystals and for some."""
    recording = Recording(name)
    network, crystals, t = recording.network(dtype), recording.crystals(dtype), recording.tensors["in/t"].to(dtype)
    for case in CASES:
        conditions = recording.conditions(case, network, dtype)
        errors = compare(network(crystals, t, conditions), recording, f"out{tag}_{case}")
        tell(capsys, f"{name}, {case}, float{tag}", errors)
        assert max(errors.values()) < limit


@pytest.mark.parametrize("which", ["S", "W"])
def test_gradients(small, which, capsys):
    """Of the plain sum and of a weighted sum of all outputs, by weights and by coordinates and lattices."""
    network, crystals = small.network(torch.float64), small.crystals(torch.float64)
    frac_coords, lattice = crystals.frac_coords.requires_grad_(), crystals.lattice.requires_grad_()
    out = network(crystals, small.tensors["in/t"].double())
    weights = {name: small.tensors[f"grad64/weights/{name}"] for name in ("pos", "cell", "logits")}
    values = {"pos": out.frac_coords, "cell": out.lattice, "logits": out.species_logits}
    total = sum(v.sum() if which == "S" else (weights[k] * v).sum() for k, v in values.items())
    total.backward()
    assert relative_error(total, small.tensors[f"grad64/{which}"]) < 1e-10
    found = {"in.frac": frac_coords.grad, "in.cell": lattice.grad}
    found |= {name: parameter.grad for name, parameter in network.named_parameters()}
    recorded = {k.split("/")[-1]: v for k, v in small.tensors.items() if k.startswith(f"grad64/{which}/")}
    assert len(recorded) == 12
    errors = {name: relative_error(found[name], truth) for name, truth in recorded.items()}
    tell(capsys, f"gradients of {which}, float64", {"worst": max(errors.values())})
    assert max(errors.values()) < 1e-8


def test_graph(small):
    """Neighbours as found, edges as kept, mirrors, and how many other edges each meets at its end."""
    crystals, tensors = small.crystals(torch.float64), small.tensors
    source, target, shifts = nearest(crystals, cutoff=7.0, max_neighbors=50, max_images=5)
    assert torch.equal(torch.stack([source, target]), tensors["graph/raw_edge_index"].long())
    assert torch.equal(shifts, tensors["graph/raw_to_jimages"].long())
    assert torch.equal(torch.bincount(crystals.crystal_index[target]), tensors["graph/raw_num_bonds"].long())

    graph = small.network(torch.float64).graph(crystals)
    assert torch.equal(graph.sizes, tensors["graph/sym_num_bonds"].long())
    ours = torch.column_stack([graph.source, graph.target, graph.shifts])
    theirs = torch.column_stack([tensors["graph/sym_edge_index"].T, tensors["graph/sym_cell_offsets"]]).long()
    place = {tuple(edge): i for i, edge in enumerate(ours.tolist())}
    order = torch.tensor([place[tuple(edge)] for edge in theirs.tolist()])
    assert len(set(order.tolist())) == len(graph) == len(theirs)
    assert torch.allclose(graph.distances[order].float(), tensors["graph/sym_dist"], atol=1e-5)
    assert torch.allclose(graph.directions[order].float(), tensors["graph/sym_unit_vec"], atol=1e-5)
    assert torch.equal(order[tensors["graph/id_swap"].long()], graph.mirror[order])
    assert torch.equal((graph.degree[graph.target] - 1)[order], tensors["graph/triplets_per_edge"].long())
    assert int((graph.degree * (graph.degree - 1)).sum()) == small.facts["n_triplets"]


def tell(capsys, what: str, errors: dict[str, float]) -> None:
    with capsys.disabled():
        print(f"\nrelative error, {what}: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
