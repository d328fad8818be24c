"""The published network: outputs, what leads to them, gradients and graphs against the published recordings."""

import json
from pathlib import Path

import pytest
import torch
from ase.data import atomic_numbers
from druse_crystal import CrystalBatch
from druse_crystal.alex_mp_20 import ELEMENTS
from druse_diffusion import Conditions
from druse_scores.gemnet import GemNet
from druse_scores.gemnet.graph import CrystalGraph, nearest
from druse_scores.gemnet.heads import lattice_tensor
from druse_scores.gemnet.published import network_of
from safetensors import safe_open

DATA = Path(__file__).parent / "data"
CASES = ("conditional", "unconditional", "mixed", "fields_absent")
FORBIDDEN = -1e10  # what the published code adds to the logits of elements that are not allowed


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


def published_order(graph: CrystalGraph, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Where the edges of a recording stand in the graph."""
    ours = torch.column_stack([graph.source, graph.target, graph.shifts])
    theirs = torch.column_stack([tensors["graph/sym_edge_index"].T, tensors["graph/sym_cell_offsets"]]).long()
    place = {tuple(edge): i for i, edge in enumerate(ours.tolist())}
    order = torch.tensor([place[tuple(edge)] for edge in theirs.tolist()])
    assert len(set(order.tolist())) == len(graph) == len(theirs)
    return order


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


@pytest.mark.parametrize("name", ["cond_small", "ctrl_small"])
def test_element_mask(name):
    """Logits where the published code leaves out elements: of all crystals, and of those that a system is told."""
    recording = Recording(name)
    network, crystals = recording.network(torch.float32), recording.crystals(torch.float32)
    for case in ("conditional", "unconditional", "mixed"):
        conditions = recording.conditions(case, network, torch.float32)
        allowed = torch.zeros(5, 101, dtype=torch.bool)
        allowed[:, [z - 1 for z in ELEMENTS]] = True
        told = conditions.given["chemical_system"]
        allowed[told, :100] &= conditions.values["chemical_system"][told].bool()
        logits = network(crystals, recording.tensors["in/t"], conditions).species_logits
        truth, free = recording.tensors[f"out32_{case}_elementmask/logits"], allowed[crystals.crystal_index]
        assert torch.equal(truth < FORBIDDEN / 2, ~free)
        assert relative_error(logits[free], truth[free]) < 1e-4


@torch.no_grad()
def test_inside(small, capsys):
    """Time, bases, atoms, edges and lattice heads on the way to the outputs, and Cartesian forces."""
    network, crystals, tensors = small.network(torch.float64), small.crystals(torch.float64), small.tensors
    core, found = network.gemnet, {}
    graph = network.graph(crystals)
    first = published_order(graph, tensors)[:200]

    def record(module, *changes):
        module.register_forward_hook(
            lambda _module, _inputs, out: found.update((name, change(out).clone()) for name, change in changes)
        )

    record(network.noise_level_encoding, ("t_enc", lambda out: out))
    record(core.atom_latent_emb, ("h_after_atom_latent_emb", lambda out: out))
    record(core.radial_basis, ("first200_rbf", lambda out: out[first]))
    record(core.edge_emb, ("first200_m_edge_emb", lambda out: out[first]))
    record(core.angle_edge_emb, ("first200_m_angle", lambda out: out[first]))
    for i, block in enumerate(core.int_blocks):
        record(block, (f"h_after_int{i}", lambda out: out[0]), (f"first200_m_after_int{i}", lambda out: out[1][first]))
    for i, head in enumerate(core.lattice_out_blocks):
        record(head, (f"lattice_out{i}", lambda out: lattice_tensor(out, graph)))
    out = network(crystals, tensors["in/t"].double())
    # lattice_out0 was recorded after the other two had been added to it
    found["lattice_out0"] = found["lattice_out0"] + found["lattice_out1"] + found["lattice_out2"]
    found["forces_cart"] = torch.einsum("ni,nij->nj", out.frac_coords, crystals.lattice[crystals.crystal_index])
    found["node_embeddings"] = found["h_after_int1"]
    recorded = {k.removeprefix("mid64/"): v for k, v in tensors.items() if k.startswith("mid64/")}
    assert recorded.keys() - found.keys() == {"energy"}  # of the heads that never reach an output
    errors = {name: relative_error(value, recorded[name]) for name, value in found.items()}
    tell(capsys, "inside, float64", errors)
    assert max(errors.values()) < 1e-12


@pytest.mark.parametrize(("dtype", "tag", "limit"), [(torch.float64, 64, 1e-10), (torch.float32, 32, 1e-4)])
@pytest.mark.parametrize("which", ["S", "W"])
def test_gradients(small, which, dtype, tag, limit, capsys):
    """Of the plain sum and of a weighted sum of all outputs, by weights and by coordinates and lattices."""
    network, crystals = small.network(dtype), small.crystals(dtype)
    frac_coords, lattice = (x.clone().requires_grad_() for x in (crystals.frac_coords, crystals.lattice))
    out = network(crystals.replace(frac_coords=frac_coords, lattice=lattice), small.tensors["in/t"].to(dtype))
    weights = {name: small.tensors[f"grad64/weights/{name}"].to(dtype) for name in ("pos", "cell", "logits")}
    values = {"pos": out.frac_coords, "cell": out.lattice, "logits": out.species_logits}
    total = sum(v.sum() if which == "S" else (weights[k] * v).sum() for k, v in values.items())
    total.backward()
    assert relative_error(total, small.tensors[f"grad64/{which}"]) < limit
    by_weight = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    found = {"in.frac": frac_coords.grad, "in.cell": lattice.grad} | by_weight
    recorded = {k.split("/")[-1]: v for k, v in small.tensors.items() if k.startswith(f"grad64/{which}/")}
    assert len(recorded) == 12
    errors = {name: relative_error(found[name], truth) for name, truth in recorded.items()}

    published = json.loads((DATA / "published_gradient_norms.json").read_text())
    norms = {name: norm["SW".index(which)] for name, norm in published["norms"].items()}
    assert by_weight.keys() == norms.keys()
    assert not set(published["without"]) & network.state_dict().keys()
    off = max(abs(float(by_weight[name].norm()) / norm - 1) for name, norm in norms.items())
    tell(capsys, f"gradients of {which}, float{tag}", {"worst": max(errors.values()), "norms of all": off})
    assert max(*errors.values(), off) < limit


def test_graph(small):
    """Neighbours as found, edges as kept, mirrors, and how many other edges each meets at its end."""
    crystals, tensors = small.crystals(torch.float64), small.tensors
    source, target, shifts = nearest(crystals, cutoff=7.0, max_neighbors=50, max_images=5)
    assert torch.equal(torch.stack([source, target]), tensors["graph/raw_edge_index"].long())
    assert torch.equal(shifts, tensors["graph/raw_to_jimages"].long())
    assert torch.equal(torch.bincount(crystals.crystal_index[target]), tensors["graph/raw_num_bonds"].long())

    graph = small.network(torch.float64).graph(crystals)
    assert torch.equal(graph.sizes, tensors["graph/sym_num_bonds"].long())
    order = published_order(graph, tensors)
    assert torch.allclose(graph.distances[order].float(), tensors["graph/sym_dist"], atol=1e-5)
    assert torch.allclose(graph.directions[order].float(), tensors["graph/sym_unit_vec"], atol=1e-5)
    assert torch.equal(order[tensors["graph/id_swap"].long()], graph.mirror[order])
    assert torch.equal((graph.degree[graph.target] - 1)[order], tensors["graph/triplets_per_edge"].long())
    assert int((graph.degree * (graph.degree - 1)).sum()) == small.facts["n_triplets"]


def tell(capsys, what: str, errors: dict[str, float]) -> None:
    with capsys.disabled():
        print(f"\nrelative error, {what}: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
