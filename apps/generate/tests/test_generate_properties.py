"""Properties: adapters are found, targets are met by a model that listens, and bad requests are one sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.dataset import load_embedded
from druse_crystal.io import read_crystals, write_cif
from druse_crystal.symmetry import spglib_dataset
from druse_generate.checking import check
from druse_generate.cli import app
from druse_generate.config import GenerateConfig, PropertyRequest, SamplerConfig, SymmetryRequest
from druse_generate.contradictions import sizes_for
from druse_generate.generating import Draw, generate
from druse_generate.property_request import choose_adapters
from druse_generate.target_report import targets_met
from druse_guidance import AdaptedNetwork, Adapter, Property, load_adapter, parse_target, save_adapter
from druse_guidance.targets import conditions_of
from druse_scores import load_checkpoint
from typer.testing import CliRunner

SHORT = SamplerConfig(steps=8, corrector_steps=0)
DENSITY = Property(name="density", unit="g/cm³").fitted(np.linspace(1, 10, 50))
GROUP = Property(name="space_group", kind="space_group").fitted([1.0, 62, 225])
GAP = Property(name="dft_band_gap", unit="eV").fitted(np.linspace(0, 5, 50))
HHI = Property(name="hhi_score").fitted(np.linspace(300, 9000, 50))
SYSTEM = Property(name="chemical_system", kind="chemical_system", num_labels=7)


LITHIA = Crystal(
    lattice=2.3 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    frac_coords=np.array([[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]]),
    atomic_numbers=np.array([8, 3, 3]),
)


@pytest.fixture(scope="module")
def model(save_tiny):
    """A model with two adapters, and one that lies elsewhere."""
    folder = save_tiny(num_atoms={2: 30, 4: 50}, elements=(3, 8, 11, 17, 26))
    network = load_checkpoint(folder).pair_network
    (folder / "adapters").mkdir()
    adapters = {"a": (DENSITY, GROUP), "b": (DENSITY,), "c": (SYSTEM, HHI), "../elsewhere": (GAP, GROUP)}
    for name, properties in adapters.items():
        torch.manual_seed(0)
        adapter = Adapter(properties, width=network.config.width, num_layers=network.config.num_layers)
        for parameter in adapter.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        save_adapter(folder / "adapters" / f"{name}.safetensors", adapter, base=network)
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_property_changes_what_is_drawn_and_guidance_how_much(model):
    checkpoint = load_checkpoint(model)
    adapter = load_adapter(model / "adapters" / "a.safetensors").adapter
    drawn = {}
    for guidance in (None, 1.0, 3.0):
        request = PropertyRequest() if guidance is None else PropertyRequest(targets=("density=9",), guidance=guidance)
        config = GenerateConfig(num=6, seed=1, sampler=SHORT, properties=request)
        draws = [draw for batch in generate(check(checkpoint, config, [adapter]), range(6)) for draw in batch]
        crystals = [draw.crystal for draw in sorted(draws, key=lambda draw: draw.index)]
        drawn[guidance] = np.stack([crystal.lattice for crystal in crystals if crystal is not None])
        assert len(drawn[guidance]) == 6
    one, three = (np.abs(drawn[guidance] - drawn[None]).mean() for guidance in (1.0, 3.0))
    assert 0.001 < one < three


def test_a_range_asks_each_crystal_for_its_own(model):
    adapter = load_adapter(model / "adapters" / "b.safetensors").adapter
    config = GenerateConfig(seed=1, properties=PropertyRequest(targets=("density=2..4",)))
    wishes = check(load_checkpoint(model), config, [adapter])
    asked = np.array([plan.asked[0][0] for plan in wishes.plans(range(200))])
    assert asked.min() >= 2
    assert asked.max() <= 4
    assert abs(asked.mean() - 3) < 0.2
    assert [plan.asked[0][0] for plan in wishes.plans([7])] == [asked[7]]


def test_a_space_group_comes_in_cells_of_its_known_sizes(model):
    adapter = load_adapter(model / "adapters" / "a.safetensors").adapter
    crystals = load_embedded().crystals
    known = [c.num_atoms for c in crystals if c.num_atoms in (2, 4) and spglib_dataset(c).number == 225]
    for properties, twos in (
        (PropertyRequest(), 30 / 80),
        (PropertyRequest(targets=("density=5",)), 30 / 80),
        (PropertyRequest(targets=("space_group=225",)), known.count(2) / len(known)),
    ):
        wishes = check(load_checkpoint(model), GenerateConfig(seed=1, properties=properties), [adapter])
        sizes = [plan.num_atoms for plan in wishes.plans(range(2000))]
        assert abs(sizes.count(2) / 2000 - twos) < 0.04
    asked = GenerateConfig(seed=1, num_atoms=(2, 2), properties=PropertyRequest(targets=("space_group=225",)))
    assert {plan.num_atoms for plan in check(load_checkpoint(model), asked, [adapter]).plans(range(50))} == {2}


def test_many_elements_need_as_many_atoms():
    asked = parse_target("num_elements>=3", {"num_elements": Property(name="num_elements").fitted([1.0, 2, 3, 4, 5])})
    assert sizes_for([asked], [1, 2, 3, 4], holds=lambda _: True) == (3, 4)
    with pytest.raises(ValueError, match="num_elements>=3 has 3 elements, and cells of 1 to 2 atoms"):
        sizes_for([asked], [1, 2], holds=lambda _: True)


def test_densities_are_compared_in_the_unit_of_the_labels(model):
    kilograms = Property(name="density", unit="kg/m³").fitted(np.linspace(1000, 9000, 50))
    for property_, compared in ((DENSITY, True), (kilograms, False)):
        target = parse_target(f"density={property_.levels[50]}", {"density": property_})
        wishes = replace(check(load_checkpoint(model), GenerateConfig(seed=1)), targets=(target,))
        report = targets_met(wishes, [Draw(index=0, crystal=LITHIA, message="")])
        assert (report[target.text] is not None) == compared


def test_the_command_finds_adapters_and_says_what_was_met(model, tmp_path):
    options = ["--property", "density=2..4", "--property", "space_group=225", "--property", "chemical_system=Li-O"]
    common = ["generate", "--num", 3, "--steps", 4, "--model", model, "--out", tmp_path / "a"]
    result = run(*common, *options, "--guidance", 1.5, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["settings"]["generate"]["properties"]["guidance"] == 1.5
    assert len(facts["settings"]["generate"]["properties"]["hashes"]) == 2  # a has both numbers, b is not needed
    targets = facts["results"]["targets"]
    assert targets.keys() == {"density=2..4", "space_group=225", "chemical_system=Li-O"}
    assert all(found["requested"] == 3 and 0 <= found["met"] <= 3 for found in targets.values())
    again = run(*common, *options, "--guidance", 2)
    assert again.exit_code == 2
    assert "properties" in again.stderr


def test_a_single_number_is_reported_with_its_distance_and_an_unknowable_one_not(model, tmp_path):
    options = [
        "--property",
        "density=5",
        "--property",
        "dft_band_gap>=4.99",
        "--adapter",
        model / "elsewhere.safetensors",
    ]
    result = run("generate", "--num", 3, "--steps", 4, "--model", model, "--out", tmp_path, *options, "--json")
    assert result.exit_code == 0, result.output
    assert "lies where hardly any label is" in result.stderr
    targets = json.loads(result.stdout)["results"]["targets"]
    assert targets["dft_band_gap>=4.99"] is None
    assert targets["density=5"]["known"] == 3
    assert targets["density=5"]["mean_absolute_difference"] >= 0


def test_adapters_given_and_shipped_share_the_work_although_they_know_the_same(model, tmp_path):
    base = load_checkpoint(model).network
    elsewhere = model / "elsewhere.safetensors"
    for targets, chosen in (
        (("dft_band_gap=2", "density=5"), [{"dft_band_gap"}, {"density"}]),
        (("dft_band_gap=2", "space_group=225", "density=5"), [{"dft_band_gap", "space_group"}, {"density"}]),
        (("space_group=225",), [{"space_group"}]),
    ):
        found = choose_adapters(model, base, PropertyRequest(targets=targets, adapters=(elsewhere,)))
        assert [set(adapter.properties) for adapter in found.values()] == chosen
        assert next(iter(found)) == elsewhere
    files = tuple(model / "adapters" / f"{name}.safetensors" for name in "ab")
    twice = PropertyRequest(targets=("density=5", "space_group=62"), adapters=files)
    with pytest.raises(ValueError, match="density comes with two adapters that were given"):
        choose_adapters(model, base, twice)


def test_a_part_of_an_adapter_acts_as_the_whole_when_the_rest_is_not_asked(model):
    network = load_checkpoint(model).pair_network
    whole = load_adapter(model / "adapters" / "a.safetensors").adapter
    part = whole.only({"density"})
    assert part.properties == {"density": DENSITY}
    noisy = CrystalBatch.from_crystals([LITHIA, LITHIA])
    conditions = conditions_of([parse_target("density=3", {"density": DENSITY})], [[np.array([3.0])]] * 2)
    t = torch.tensor([0.3, 0.8])
    with torch.no_grad():
        by_whole, by_part = (AdaptedNetwork(network, [a])(noisy, t, conditions) for a in (whole, part))
        assert torch.equal(by_whole.frac_coords, by_part.frac_coords)
        assert torch.equal(by_whole.species_logits, by_part.species_logits)
        assert not torch.allclose(by_whole.frac_coords, network(noisy, t).frac_coords)


def test_guidance_outside_of_its_interval_is_one(model, tmp_path):
    common = ["generate", "--num", 2, "--steps", 6, "--model", model, "--corrector-steps", 0]
    drawn = {}
    for name, options in (
        ("one", ["--property", "density=9", "--guidance", "1"]),
        ("never", ["--property", "density=9", "--guidance-interval", "0.0-0.0"]),
        ("always", ["--property", "density=9"]),
    ):
        result = run(*common, *options, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
        drawn[name] = [r.crystal.lattice for r in read_crystals(tmp_path / name / "crystals.extxyz") if r.crystal]
    assert np.allclose(drawn["never"], drawn["one"])
    assert not np.allclose(drawn["always"], drawn["one"])


def test_a_warning_is_said_even_quietly_and_kept(model, tmp_path):
    options = ["--property", "dft_band_gap>=4.99", "--adapter", model / "elsewhere.safetensors", "--quiet"]
    result = run("generate", "--num", 1, "--steps", 4, "--model", model, "--out", tmp_path, *options)
    assert "lies where hardly any label is" in result.stderr
    kept = json.loads((tmp_path / "manifest.json").read_text())["results"]["warnings"]
    assert kept == [result.stderr.strip()]


def test_a_built_in_group_has_an_orbit_for_each_element_of_a_target(model):
    network = load_checkpoint(model).network
    request = PropertyRequest(targets=("chemical_system=Fe-Li-O",))
    adapters = list(choose_adapters(model, network, request).values())
    plain, asked = (
        check(
            load_checkpoint(model),
            GenerateConfig(symmetry=SymmetryRequest(space_group=123), properties=properties),
            adapters,
        )
        for properties in (PropertyRequest(), request)
    )
    assert min(len(sites.orbit_sizes) for sites in plain.sites) < 3
    assert min(len(sites.orbit_sizes) for sites in asked.sites) >= 3


def test_hard_guidance_is_warned_of(model, tmp_path):
    common = ["generate", "--model", model, "--num", 1, "--steps", 2, "--property", "density=5", "--quiet"]
    for guidance, warned in (("10", False), ("50", True)):
        result = run(*common, "--guidance", guidance, "--out", tmp_path / guidance)
        assert result.exit_code == 0, result.output
        assert ("a guidance of 50 leaves few crystals whole" in " ".join(result.stderr.split())) == warned


def test_info_takes_the_model_by_place_too(model):
    one, other = (run("info", *words, "--json") for words in (["--model", model], [model]))
    assert one.stdout == other.stdout
    assert run("info", model, "--model", model).exit_code == 2


def test_info_lists_what_can_be_asked(model):
    known = json.loads(run("info", "--model", model, "--json").stdout)["properties"]
    of = {(row["name"], row["adapter"]): row for row in known}
    assert of["density", "b.safetensors"] == {
        "name": "density",
        "kind": "scalar",
        "unit": "g/cm³",
        "num_labels": 50,
        "description": "1 to 10 g/cm³, 50 labels",
        "low": 1.0,
        "high": 10.0,
        "adapter": "b.safetensors",
    }
    assert of["space_group", "a.safetensors"]["space_groups"] == [1, 62, 225]
    words = run("info", "--model", model).stdout
    assert "density (b.safetensors): 1 to 10 g/cm³, 50 labels" in words
    more = run("info", "--model", model, "--adapter", model / "elsewhere.safetensors")
    assert "0 to 5 eV" in more.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--property", "density=5", "--guidance", "0"], "leaves properties out of account"),
        (["--property", "density=5", "--guidance", "-1"], "guidance scale is -1"),
        (["--property", "density=50"], "lie between 1 and 10 g/cm³: ask for something in between"),
        (["--property", "density=5g"], "a number in g/cm³, without the unit"),
        (["--property", "density=5", "--property", "density<=3"], "density was asked for more than once"),
        (["--property", "hardness=5"], "knows no property 'hardness': it knows density (1 to 10 g/cm³, 50 labels)"),
        (["--property", "space_group=100"], "space groups 1, 62, 225"),
        (["--adapter", "elsewhere.safetensors"], "nothing asked of it"),
        (["--guidance", "3"], "a guidance was given and no property"),
        (["--property", "space_group=62", "--space-group", "225"], "space group 225 were asked for at once"),
        (["--property", "chemical_system=Na-Cl", "--elements", "Li-O"], "Na is not allowed at once"),
        (["--property", "chemical_system=He-O"], "no crystal that the model was trained on holds He"),
        (["--property", "chemical_system=Na-Cl", "--formula", "NaCl", "--include", "Li"], "NaCl does not have it"),
        (["--property", "chemical_system=Na-Cl", "--include", "Li"], "Li was asked for at once"),
        (["--property", "chemical_system=Na-Cl", "--counts", "O:1-"], "O was asked for at once"),
        (["--property", "chemical_system=Na-Cl", "--seed-structure", "a.cif", "--keep", "species:O"], "O was asked"),
        (["--property", "chemical_system=Fe-Li-O", "--num-atoms", "2"], "has 3 elements, and cells of 2 atoms"),
        (["--property", "space_group=225", "--symmetric"], "build the group in (--space-group 225)"),
        (["--property", "space_group=62", "--num-atoms", "2"], "the orbits of this group have 4, 8 atoms"),
        (["--property", "space_group=62", "--formula", "LiO3"], "the orbits of this group have 4, 8 atoms"),
        (["--property", "hhi_score<=500", "--formula", "LiCl"], "with the elements that were asked for it is"),
        (["--property", "hhi_score<=500", "--elements", "Li-Fe"], "with the elements that were asked for it is"),
        (["--guidance-interval", "0.1-0.5"], "a guidance was given and no property"),
        (["--property", "density=5", "--guidance-interval", "0.5"], "write two times, such as 0.1-0.8"),
        (["--property", "density=5", "--guidance-interval", "0.8-0.1"], "the lower one first"),
        (["--config", "guidance.yaml"], "guidance of properties was given and no property"),
        (["--config", "steering.yaml"], "particles of steering was given and nothing to steer by"),
        (["--particles", "8"], "nothing to steer by"),
        (["--gradient-below", "0.1"], "nothing to steer by"),
        (["--property", "density=5", "--adapter", "GAP"], "nothing was asked of the adapter"),
        (["--property", "chemical_system=Md-O"], "no class for Md"),
        (["--property", "density=5", "--adapter", "elsewhere.safetensors"], "does not exist"),
        (["--property", "density=5..3"], "lower end first, ask for density=3..5"),
        (["--property", "1<=density<=3"], "is no target"),
        (["--property", "density=5", "--guidance", "1", "--guidance-interval", "0.1-0.8"], "leave the interval out"),
        (["--property", "space_group=225", "--seed-structure", "a.cif", "--keep", "lattice"], "is not cubic"),
        (["--property", "hhi_score<=500", "--seed-structure", "a.cif", "--keep", "species"], "asked for it is"),
        (["--property", "chemical_system=Li-O", "--property", "hhi_score=9000"], "asked for it is"),
        (
            ["--property", "space_group=62", "--seed-structure", "a.cif", "--strength", "0.3", "--symmetric"],
            "symmetry of the structure to start from",
        ),
        (["--counts", "Xe:0-2"], "no crystal that the model was trained on holds Xe"),
    ],
)
def test_bad_requests_are_one_sentence(model, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    write_cif(tmp_path / "a.cif", LITHIA.replace(lattice=LITHIA.lattice * [1, 1, 1.3]))
    (tmp_path / "guidance.yaml").write_text("properties: {guidance: 5}")
    (tmp_path / "steering.yaml").write_text("steering: {particles: 8}")
    options = [str(model / "elsewhere.safetensors") if option == "GAP" else option for option in options]
    result = run("generate", "--out", tmp_path / "x", "--model", model, *options)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x").exists()
