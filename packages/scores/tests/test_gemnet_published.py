"""Published checkpoints: names and shapes of the nine models, what is refused, symmetries, sampled trajectories."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import NUM_ELEMENTS, Conditions
from druse_scores.gemnet import GemNet, GemNetConfig, KnownProperty
from druse_scores.gemnet.published import PREFIX, ForeignWeights, network_of, published_shapes
from druse_scores.testing import check_score_model

DATA = Path(__file__).parent / "data"
TINY = GemNetConfig(num_blocks=2, hidden=16, trip=8, bilinear=8, rbf=4, cbf=4, num_radial=16)
MODELS = {
    "mattergen_base": (),
    "mp_20_base": (),
    "chemical_system": ("chemical_system",),
    "space_group": ("space_group",),
    "dft_mag_density": ("dft_mag_density",),
    "dft_band_gap": ("dft_band_gap",),
    "ml_bulk_modulus": ("ml_bulk_modulus",),
    "dft_mag_density_hhi_score": ("dft_mag_density", "hhi_score"),
    "chemical_system_energy_above_hull": ("chemical_system", "energy_above_hull"),
}


@pytest.fixture(scope="module")
def shapes():
    return json.loads((DATA / "published_key_shapes.json").read_text())


def crystals(*sizes: int) -> CrystalBatch:
    generator = torch.Generator().manual_seed(0)
    noise = 0.4 * torch.randn(len(sizes), 3, 3, generator=generator, dtype=torch.float64)
    edge = (torch.tensor(sizes).double() / 0.06) ** (1 / 3)
    return CrystalBatch(
        lattice=edge[:, None, None] * torch.eye(3, dtype=torch.float64) + noise + noise.mT,
        frac_coords=torch.rand(sum(sizes), 3, generator=generator, dtype=torch.float64),
        atomic_numbers=torch.randint(1, 102, (sum(sizes),), generator=generator),
        num_atoms=torch.tensor(sizes),
    )


@pytest.mark.parametrize("model", MODELS)
def test_the_nine_models_load_strictly(model, shapes):
    tensors = {name: torch.ones(()).expand(shape) for name, shape in shapes[model].items()}
    network = network_of(tensors)
    config = network.config
    assert tuple(p.name for p in config.properties) == MODELS[model]
    assert (config.hidden, config.num_blocks, config.num_radial) == (512, 4, 128)
    assert {PREFIX + name: list(shape) for name, shape in published_shapes(network).items()} == shapes[model]
    if model == "ml_bulk_modulus":
        assert config.properties[0].kind == "log_scalar"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("gemnet.int_blocks.1.dense_ca.linear.weight"), "lacks tensors gemnet.int_blocks.1.dense_ca"),
        (lambda t: t.pop("gemnet.atom_emb.embeddings.weight"), "lacks tensors gemnet.atom_emb"),
        (lambda t: t.pop("gemnet.out_blocks.0.out_energy.linear.weight"), "lacks tensors gemnet.out_blocks.0.out_e"),
        (lambda t: t.update({"gemnet.more.weight": torch.ones(1)}), "has unknown tensors gemnet.more.weight"),
        (lambda t: t.update({"fc_atom.bias": torch.ones(3)}), "has another shape of tensors fc_atom.bias"),
        (lambda t: t["fc_atom.bias"].fill_(torch.nan), "not finite in tensors fc_atom.bias"),
        (lambda t: t.clear(), "lacks tensors"),
    ],
)
def test_other_tensors_are_refused(change, words):
    network = GemNet(TINY)
    tensors = {n: torch.zeros(s) for n, s in published_shapes(network).items()} | network.state_dict()
    assert network_of(tensors).config == TINY
    change(tensors)
    with pytest.raises(ForeignWeights, match=words):
        network_of(tensors)


@pytest.mark.parametrize("max_neighbors", [12, 1000])
def test_the_symmetric_graph_has_all_symmetries(max_neighbors):
    torch.manual_seed(0)
    network = GemNet(replace(TINY, graph="symmetric", max_neighbors=max_neighbors)).double().eval()
    check_score_model(network, crystals(1, 2, 6, 4), torch.tensor([0.1, 0.5, 0.3, 0.9], dtype=torch.float64))


def test_the_published_graph_depends_on_the_order_of_atoms_where_it_cuts():
    torch.manual_seed(0)
    batch, t = crystals(6, 4), torch.tensor([0.5, 0.3], dtype=torch.float64)
    uncut = GemNet(replace(TINY, max_neighbors=1000, max_images=20)).double().eval()
    check_score_model(uncut, batch, t)
    cut = GemNet(replace(TINY, max_neighbors=12)).double().eval()
    with pytest.raises(AssertionError, match="permutation of atoms"):
        check_score_model(cut, batch, t)


def test_lonely_atoms_have_no_edges_and_no_trouble():
    network = GemNet(TINY).eval()
    lonely = CrystalBatch(
        lattice=20 * torch.eye(3).expand(2, 3, 3),
        frac_coords=torch.zeros(2, 3),
        atomic_numbers=torch.tensor([8, 101]),
        num_atoms=torch.tensor([1, 1]),
    )
    out = network(lonely, torch.tensor([0.5, 0.1]))
    assert torch.equal(out.lattice, torch.zeros(2, 3, 3))
    assert torch.equal(out.frac_coords, torch.zeros(2, 3))
    assert out.species_logits.isfinite().all()


def test_a_property_that_is_not_given_changes_nothing_and_an_unknown_one_is_refused():
    known = (KnownProperty(name="gap"), KnownProperty(name="system", kind="chemical_system", adapter=False))
    torch.manual_seed(0)
    network, batch = GemNet(replace(TINY, properties=known)).double().eval(), crystals(3, 2)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    t, no, yes = torch.tensor([0.5, 0.3]).double(), torch.tensor([False, False]), torch.tensor([True, False])
    values = {"gap": torch.tensor([1.0, 2.0]).double(), "system": torch.ones(2, NUM_ELEMENTS).double()}
    plain, untold = network(batch, t), network(batch, t, Conditions(values=values, given={"gap": no, "system": no}))
    assert torch.equal(plain.species_logits, untold.species_logits)
    for name in values:
        given = {"gap": no, "system": no} | {name: yes}
        told = network(batch, t, Conditions(values=values, given=given))
        assert not torch.allclose(told.species_logits[:3], plain.species_logits[:3], atol=1e-4)
        assert torch.allclose(told.species_logits[3:], plain.species_logits[3:])
    with pytest.raises(ValueError, match="asked for colour and knows of properties gap, system"):
        network(batch, t, Conditions(values={"colour": t}, given={"colour": no}))


@pytest.mark.parametrize("graph", ["published", "symmetric"])
def test_atoms_at_one_place_are_no_neighbours(graph):
    torch.manual_seed(0)
    network, batch = GemNet(replace(TINY, graph=graph)).double().eval(), crystals(3, 2)
    batch.frac_coords[1] = batch.frac_coords[0]
    edges = network.graph(batch)
    assert float(edges.distances.min()) > 0.01
    out = network(batch, torch.tensor([0.5, 0.3]).double())
    assert out.frac_coords.isfinite().all()
    assert out.lattice.isfinite().all()


@pytest.mark.parametrize("adapter", [True, False])
def test_what_stands_in_rows_that_are_not_given_has_no_effect(adapter):
    """Labels that a dataset lacks are not-a-numbers, or group 0: outputs and gradients do not see them."""
    known = (
        KnownProperty(name="gap", adapter=adapter),
        KnownProperty(name="group", kind="space_group", adapter=adapter),
    )
    torch.manual_seed(0)
    network, batch = GemNet(replace(TINY, properties=known)).double(), crystals(3, 2)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    t, first = torch.tensor([0.5, 0.3]).double(), torch.tensor([True, False])
    results = []
    for gap, group in ((2.0, 7), (torch.nan, 0)):
        values = {"gap": torch.tensor([1.0, gap]).double(), "group": torch.tensor([225, group])}
        network.zero_grad()
        out = network(batch, t, Conditions(values=values, given={"gap": first, "group": first}))
        out.species_logits.square().sum().backward()
        results.append([out.species_logits.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_mixed_precision_changes_little_and_not_the_type():
    torch.manual_seed(0)
    network, batch = GemNet(replace(TINY, hidden=32)).eval(), crystals(3, 2)
    batch = batch.replace(lattice=batch.lattice.float(), frac_coords=batch.frac_coords.float())
    t = torch.tensor([0.5, 0.3])
    with torch.no_grad():
        full = network(batch, t)
        network.mixed_precision = True
        mixed = network(batch, t)
    for name in ("lattice", "frac_coords", "species_logits"):
        x, y = getattr(mixed, name), getattr(full, name)
        assert x.dtype == torch.float32
        assert 0 < float((x - y).abs().max() / y.abs().max()) < 0.05
