"""Adapters: nothing changes before training or without conditions, several stack, and files know their base."""

import json

import numpy as np
import pytest
import torch
from druse_crystal import CrystalBatch
from druse_diffusion import MASK, Conditions
from druse_guidance import AdaptedNetwork, Adapter, AdapterError, AllowedElements, Property, load_adapter, save_adapter
from druse_guidance.properties import multi_hot
from druse_scores import PairNetwork, PairNetworkConfig
from druse_scores.testing import check_score_model
from safetensors.torch import load_file, save_file

TINY = PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=2, num_radial=4, num_harmonics=2)
GAP = Property(name="dft_band_gap", unit="eV").fitted([0.0, 1.0, 2.0, np.nan, 4.0])
MODULUS = Property(name="bulk_modulus", kind="log_scalar", unit="GPa").fitted([1.0, 10.0, 100.0, 300.0])
GROUP = Property(name="space_group", kind="space_group").fitted([225, 1, 62, 62])
SYSTEM = Property(name="chemical_system", kind="chemical_system", num_labels=5)
ALL = (GAP, MODULUS, GROUP, SYSTEM)


def trained(module, seed=0):
    """Weights as after training: nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return module


def make_adapter(*properties, seed=1):
    torch.manual_seed(seed)
    return Adapter(properties, width=16, num_layers=2)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return trained(PairNetwork(TINY)).double().eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    n = torch.tensor([5, 3, 8])
    total = int(n.sum())
    numbers = torch.randint(1, 80, (total,), generator=generator)
    numbers[::4] = MASK
    return CrystalBatch(
        lattice=4 * torch.eye(3).double() + 0.4 * torch.randn(3, 3, 3, generator=generator, dtype=torch.float64),
        frac_coords=torch.rand(total, 3, generator=generator, dtype=torch.float64),
        atomic_numbers=numbers,
        num_atoms=n,
    )


T = torch.tensor([0.2, 0.6, 0.9], dtype=torch.float64)


def conditions(*, given=(True, True, True)):
    given = torch.tensor(given)
    values = {
        "dft_band_gap": torch.tensor(GAP.learnable([0.5, 3.0, 1.0])),
        "bulk_modulus": torch.tensor(MODULUS.learnable([50.0, 200.0, np.nan])),
        "space_group": torch.tensor([225, 1, 62]),
        "chemical_system": torch.tensor(multi_hot([[3, 8], [11, 17], [26]])),
    }
    return Conditions(values=values, given=dict.fromkeys(values, given))


def same(a, b, tolerance=0.0):
    return all(
        torch.allclose(getattr(a, name), getattr(b, name), rtol=0, atol=tolerance)
        for name in ("lattice", "frac_coords", "species_logits")
    )


def test_an_untrained_adapter_changes_nothing(network, batch):
    adapted = AdaptedNetwork(network, [make_adapter(*ALL).double()])
    assert same(adapted(batch, T, conditions()), network(batch, T))


def test_without_conditions_a_trained_adapter_changes_nothing(network, batch):
    adapted = AdaptedNetwork(network, [trained(make_adapter(*ALL)).double()])
    assert same(adapted(batch, T), network(batch, T))
    assert same(adapted(batch, T, conditions(given=(False, False, False))), network(batch, T))
    some = adapted(batch, T, conditions(given=(False, True, False)))
    assert torch.equal(some.lattice[[0, 2]], network(batch, T).lattice[[0, 2]])
    assert not torch.allclose(some.lattice[1], network(batch, T).lattice[1], atol=1e-4)


@pytest.mark.parametrize("name", [p.name for p in ALL])
def test_every_property_moves_every_output(network, batch, name):
    adapted = AdaptedNetwork(network, [trained(make_adapter(*ALL)).double()])
    one = Conditions(values={name: conditions().values[name]}, given={name: torch.tensor([True] * 3)})
    found, free = adapted(batch, T, one), network(batch, T)
    for field in ("lattice", "frac_coords", "species_logits"):
        assert (getattr(found, field) - getattr(free, field)).abs().max() > 1e-3, field


def test_a_second_adapter_keeps_the_properties_of_the_first(network, batch):
    first, second = trained(make_adapter(GAP, MODULUS)).double(), trained(make_adapter(GROUP, SYSTEM), 7).double()
    both = AdaptedNetwork(network, [first, second])
    assert list(both.properties) == [p.name for p in ALL]
    full = conditions()
    only_first = Conditions(
        values={name: full.values[name] for name in first.properties},
        given={name: full.given[name] for name in first.properties},
    )
    assert same(both(batch, T, only_first), AdaptedNetwork(network, [first])(batch, T, only_first))
    assert not same(both(batch, T, full), both(batch, T, only_first), 1e-3)
    assert same(both(batch, T, full), AdaptedNetwork(network, [second, first])(batch, T, full), 1e-12)


def test_an_adapted_network_keeps_the_symmetries_of_a_crystal(network, batch):
    adapted, every = AdaptedNetwork(network, [trained(make_adapter(*ALL)).double()]), conditions()

    def asked(noisy, t, conditions=None):
        full = every
        if len(noisy) == 3:
            return adapted(noisy, t, full)
        row = [5, 3, 8].index(int(noisy.num_atoms[0]))
        return adapted(
            noisy,
            t,
            Conditions(
                values={name: value[row : row + 1] for name, value in full.values.items()},
                given={name: value[row : row + 1] for name, value in full.given.items()},
            ),
        )

    check_score_model(asked, batch, T)


def test_gradients_reach_the_adapter_and_leave_a_frozen_base_alone(network, batch):
    adapter = make_adapter(*ALL).double()
    network.requires_grad_(False)
    out = AdaptedNetwork(network, [adapter])(batch, T, conditions())
    (out.lattice.square().sum() + out.frac_coords.square().sum() + out.species_logits.square().sum()).backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    last = [p.grad for name, p in adapter.named_parameters() if name.endswith("crystal.2.weight")]
    assert len(last) == 4
    assert all(grad is not None and grad.abs().max() > 0 for grad in last)


def test_a_batch_without_labels_still_has_gradients(network, batch):
    """Of a frozen base nothing else learns: a step on withheld labels must not fail."""
    adapter = make_adapter(*ALL).double()
    network.requires_grad_(False)
    out = AdaptedNetwork(network, [adapter])(batch, T, conditions(given=(False, False, False)))
    assert same(out, network(batch, T))
    out.lattice.square().sum().backward()
    assert all(parameter.grad is not None for name, parameter in adapter.named_parameters() if "crystal.2" in name)


def test_what_does_not_fit_is_named(network, batch):
    with pytest.raises(ValueError, match=r"16 channels and 3 interactions, this one has 16 and 2"):
        AdaptedNetwork(network, [Adapter([GAP], width=16, num_layers=3)])
    with pytest.raises(ValueError, match="dft_band_gap comes with two adapters"):
        AdaptedNetwork(network, [make_adapter(GAP), make_adapter(GAP)])
    with pytest.raises(ValueError, match="properties with different names"):
        make_adapter(GAP, GAP)
    adapted = AdaptedNetwork(network, [make_adapter(GAP).double()])
    wrong = Conditions(values={"colour": torch.zeros(3)}, given={"colour": torch.tensor([True] * 3)})
    with pytest.raises(ValueError, match="knows no property 'colour': it knows dft_band_gap"):
        AllowedElements(adapted, [8])(batch, T, wrong)
    with pytest.raises(ValueError, match="asked for colour and knows no properties"):
        network(batch, T, wrong)


def test_a_file_is_small_and_knows_its_base(network, batch, tmp_path):
    adapter = trained(make_adapter(*ALL))
    save_adapter(tmp_path / "a.safetensors", adapter, base=network, provenance={"steps": 3})
    stored = load_adapter(tmp_path / "a.safetensors", base=network)
    assert stored.provenance == {"steps": 3}
    assert list(stored.adapter.properties.values()) == list(ALL)
    before = AdaptedNetwork(network, [adapter.double()])(batch, T, conditions())
    assert same(AdaptedNetwork(network, [stored.adapter.double()])(batch, T, conditions()), before, 1e-6)
    other = PairNetwork(TINY)
    with pytest.raises(AdapterError, match="trained on another base"):
        load_adapter(tmp_path / "a.safetensors", base=other)


@pytest.mark.parametrize("name", ["type", "training", "items", "forward", "apply", "property", "id"])
def test_a_property_may_be_called_as_modules_call_their_own(network, batch, tmp_path, name):
    named = Property(name=name).fitted([0.0, 1.0, 2.0])
    adapter = trained(make_adapter(GAP, named))
    save_adapter(tmp_path / "a.safetensors", adapter.train(), base=network)
    stored = load_adapter(tmp_path / "a.safetensors", base=network).adapter
    asked = Conditions(values={name: torch.ones(3)}, given={name: torch.tensor([True] * 3)})
    found = AdaptedNetwork(network, [adapter.double()])(batch, T, asked)
    assert not same(found, network(batch, T), 1e-3)
    assert same(found, AdaptedNetwork(network, [stored.only([name]).double()])(batch, T, asked), 1e-6)


def test_weights_of_ordinary_properties_carry_their_names():
    """Adapters that were written before stay readable."""
    keys = {key.removeprefix("branches.").split(".")[0] for key in make_adapter(*ALL).state_dict()}
    assert keys == {"dft_band_gap", "bulk_modulus", "space_group", "chemical_system"}


def test_bad_files_are_named(network, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(AdapterError, match="does not exist"):
        load_adapter(path)
    save_adapter(path, make_adapter(GAP), base=network)
    content = path.read_bytes()
    path.write_bytes(content[:-50])
    with pytest.raises(AdapterError, match="truncated or no safetensors file"):
        load_adapter(path)
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(AdapterError, match="truncated or no safetensors file"):
        load_adapter(path)
    path.write_bytes(content)
    tensors = load_file(path)
    save_file(tensors, path)
    with pytest.raises(AdapterError, match="not an adapter"):
        load_adapter(path)
    header = {
        "format": 1,
        "base": "",
        "width": 16,
        "num_layers": 2,
        "provenance": {},
        "properties": [{"name": "x", "kind": "shape", "levels": [], "groups": []}],
    }
    for change, words in (({}, "'shape'"), ({"properties": []}, "different names"), ({"width": "a"}, "damaged")):
        save_file(tensors, path, metadata={"druse_adapter": json.dumps(header | change)})
        with pytest.raises(AdapterError, match=words):
            load_adapter(path)


def test_embeddings_of_all_kinds_have_one_size():
    adapter = make_adapter(*ALL)
    told = conditions()
    for name in adapter.properties:
        branch = adapter.branch(name)
        size = branch.encoder(torch.nan_to_num(told.values[name]).float()).square().mean(-1)
        assert torch.allclose(size, torch.ones_like(size), atol=0.01), name


def test_what_is_said_of_the_elements_reaches_every_atom(network, batch):
    adapter = make_adapter(SYSTEM).double()
    last = adapter.branch("chemical_system").species[-1]
    with torch.no_grad():
        last.weight[:] = torch.randn_like(last.weight)
    plain, told = network(batch, T), AdaptedNetwork(network, [adapter])(batch, T, only("chemical_system"))
    changed = (told.species_logits - plain.species_logits)[:, :-1].abs()
    assert (changed.amax(-1) > 1e-3).all()
    assert torch.equal(told.lattice, plain.lattice)
    assert torch.equal(told.frac_coords, plain.frac_coords)


def only(name):
    """The condition of one property."""
    all_of_them = conditions()
    return Conditions(values={name: all_of_them.values[name]}, given={name: all_of_them.given[name]})
