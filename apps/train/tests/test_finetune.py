"""Fine-tuning: adapters learn what labels say, leave the base alone, stack, resume, and bad recipes are named."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from druse_crystal import Crystal
from druse_crystal.dataset import CrystalDataset
from druse_diffusion import NUM_CLASSES, Conditions, CrystalProcess, Prediction, RandomStreams, training_loss
from druse_energetics.predictors import PREDICTORS, Predictor
from druse_guidance import AdaptedNetwork, Property, load_adapter
from druse_guidance.units import USUAL
from druse_scores import Checkpoint, PairNetwork, PairNetworkConfig, load_checkpoint, save_checkpoint, weights_hash
from druse_train import finetuning, property_labels
from druse_train.batches import as_batch
from druse_train.calibration import calibrate, obtainers
from druse_train.cli import app
from druse_train.config import CalibrationConfig, FinetuneConfig, PropertyConfig, read_recipe
from druse_train.property_labels import (
    PropertyLabels,
    balanced,
    labelled,
    learn_properties,
    raw_labels,
    thinned,
    unit_of,
)
from druse_train.state import load_state
from safetensors.torch import load_file
from typer.testing import CliRunner

TINY = PairNetworkConfig(width=16, pair_width=8, vector_width=4, num_layers=1, num_radial=4, num_harmonics=2)
RECIPE = """
base: base
properties:
  - {name: size, kind: log_scalar, unit: Å, column: edge}
  - {name: space_group}
dropout: 0.2
data: {pair_budget: 200}
optimizer: {warmup_steps: 2, ema_decay: 0.9, lr: 0.01}
validate_every_steps: 10
checkpoint_every_minutes: 100
calibration: {num: 0}
max_steps: 20
mixed_precision: false
threads: 1
"""


@pytest.fixture
def dataset(tmp_path):
    """Cubic crystals whose edge is a label, of half of them known; two kinds of element."""
    rng = np.random.default_rng(0)
    crystals, edges = [], []
    for i in range(60):
        edge = rng.uniform(3, 8)
        n = 1 + i % 2
        crystals.append(
            Crystal(
                lattice=edge * np.eye(3),
                frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]])[:n],
                atomic_numbers=np.array([3, 8 + 8 * (i % 3 == 0)])[:n],
            )
        )
        edges.append(edge if i % 4 else np.nan)
    data = CrystalDataset(
        ids=[f"c{i}" for i in range(60)],
        crystals=crystals,
        labels={
            "edge": edges,
            "few": [1.0, 2.0] + 58 * [np.nan],
            "broken": [*range(1, 60), np.inf],
            "late": [*range(1, 60), -1.0],
            "early": [-1.0, *range(1, 60)],
            "groups": [*(59 * [221.0]), 999.0],
        },
        split=["val" if i % 5 == 4 else "train" for i in range(60)],
    )
    data.write(tmp_path / "data.parquet")
    return data


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    network = PairNetwork(TINY)
    for parameter in network.parameters():  # heads start as zero, and an adapter acts through them
        parameter.data += 0.1 * torch.randn_like(parameter)
    checkpoint = Checkpoint(network=network, num_atoms={1: 24, 2: 24}, elements=(3, 8, 16))
    save_checkpoint(checkpoint, tmp_path / "base")
    return load_checkpoint(tmp_path / "base").network


def run(tmp_path, *options, recipe=RECIPE, out="run"):
    (tmp_path / "recipe.yaml").write_text(recipe)
    arguments = ["finetune", tmp_path / "recipe.yaml", "--data", tmp_path / "data.parquet", "--out", tmp_path / out]
    return CliRunner().invoke(app, [str(a) for a in (*arguments, *options)])


def changed(**settings):
    """The recipe with some settings replaced, each as YAML."""
    return yaml.safe_dump(yaml.safe_load(RECIPE) | {key: yaml.safe_load(str(value)) for key, value in settings.items()})


def test_recipes_of_the_package_are_there_by_name(tmp_path, dataset, base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--base", "base", "--data", "data.parquet", "--out", "run"]
    result = CliRunner().invoke(app, ["finetune", "paper_properties", *arguments])
    assert result.exit_code == 2  # the recipe was found: it asks for labels that these data do not have
    assert "the dataset has no column 'ehull_best'" in " ".join(result.stderr.split())
    result = CliRunner().invoke(app, ["finetune", "no_such_recipe", *arguments])
    assert result.exit_code == 2
    assert "no_such_recipe" in result.stderr


def test_no_property_is_nothing_to_learn(tmp_path, dataset, base):
    result = run(tmp_path, recipe=changed(properties="[]"))
    assert result.exit_code == 2
    assert "properties is empty: name what the adapter is to learn" in result.stderr


def held_out_loss(network, config, dataset, *, told):
    """Of the lattice, averaged over crystals and times."""
    raw = {split: [raw_labels(p, dataset.subset(split)) for p in config.properties] for split in ("train", "val")}
    properties = learn_properties(config.properties, raw["train"])
    part, labels = labelled(properties, raw["val"], dataset.subset("val"))
    clean, index = as_batch(part), torch.arange(len(part))
    total = 0.0
    for seed in range(8):
        losses = training_loss(
            CrystalProcess(),
            network,
            clean,
            conditions=labels.conditions(index) if told else None,
            generator=RandomStreams(seed, index),
        )
        total += float(losses.lattice.mean())
    return total / 8


def test_an_adapter_learns_what_its_labels_say_and_leaves_the_base_alone(tmp_path, dataset, base):
    before = weights_hash(base)
    recipe = changed(max_steps=300, validate_every_steps=100)
    result = run(tmp_path, "--json", recipe=recipe)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] == 300
    assert weights_hash(load_checkpoint(tmp_path / "base").network) == before
    assert not (tmp_path / "run" / "best" / "base").exists()
    stored = load_adapter(tmp_path / "run" / "best" / "adapter.safetensors", base=base)
    size, group = stored.adapter.properties["size"], stored.adapter.properties["space_group"]
    known = dataset.labels["edge"][(dataset.split == "train") & ~np.isnan(dataset.labels["edge"])]
    assert (size.kind, size.unit, size.num_labels) == ("log_scalar", "Å", len(known))
    assert size.levels[-1] == pytest.approx(known.max())
    assert group.groups == (221,)
    assert stored.provenance["runs"][0]["steps"] >= 100
    config = read_recipe(tmp_path / "recipe.yaml", FinetuneConfig)
    adapted = AdaptedNetwork(base, [stored.adapter])
    told, untold = (held_out_loss(adapted, config, dataset, told=told) for told in (True, False))
    plain = held_out_loss(base, config, dataset, told=False)
    assert untold == pytest.approx(plain, abs=1e-6)  # without conditions the model is the base
    assert told < 0.8 * untold  # knowing the edge, the lattice is guessed better


def test_balance_repeats_crystals_with_rare_labels_in_training_only(tmp_path, dataset, base, monkeypatch):
    seen = {}

    class Watched(finetuning.DiffusionModule):
        def __init__(self, config, network, train, validation, *args, labels, **kwargs):
            seen["lengths"] = (len(train), len(validation), *(len(part.known["size"]) for part in labels))
            seen["sizes"] = labels[0].values["size"]
            super().__init__(config, network, train, validation, *args, labels=labels, **kwargs)

    monkeypatch.setattr(finetuning, "DiffusionModule", Watched)
    labels = {"edge": [30.0 if i == 7 else edge for i, edge in enumerate(dataset.labels["edge"])]}
    CrystalDataset(ids=dataset.ids, crystals=dataset.crystals, labels=labels, split=dataset.split).write(
        tmp_path / "data.parquet"
    )
    assert run(tmp_path, recipe=changed(max_steps=2), out="even").exit_code == 0
    assert seen["lengths"] == (48, 12, 48, 12)
    monkeypatch.setattr(property_labels, "_SHARE", 0.1)
    assert run(tmp_path, recipe=changed(balance=3, max_steps=2), out="more").exit_code == 0
    train, held_out, told, _ = seen["lengths"]
    assert train == told > 48
    assert held_out == 12
    assert int((seen["sizes"] == seen["sizes"].max()).sum()) == 3
    assert run(tmp_path, recipe=changed(balance=0), out="none").exit_code == 2


def test_a_base_that_learns_too_is_written_beside_the_adapter(tmp_path, dataset, base):
    assert run(tmp_path, recipe=RECIPE + "freeze_base: false\n").exit_code == 0
    best = tmp_path / "run" / "best"
    learnt = load_checkpoint(best / "base").network
    assert weights_hash(learnt) != weights_hash(base)
    load_adapter(best / "adapter.safetensors", base=learnt)
    with pytest.raises(ValueError, match="another base"):
        load_adapter(best / "adapter.safetensors", base=base)


def test_an_adapter_on_an_adapted_model_keeps_the_first_property(tmp_path, dataset, base):
    assert run(tmp_path, out="first").exit_code == 0
    first = tmp_path / "first" / "best" / "adapter.safetensors"
    second = changed(properties="[{name: density}]", adapters="[first/best/adapter.safetensors]")
    content = first.read_bytes()
    result = run(tmp_path, recipe=second, out="second")
    assert result.exit_code == 0, result.output
    assert first.read_bytes() == content
    files = [tmp_path / out / "best" / "adapter.safetensors" for out in ("first", "second")]
    adapters = [load_adapter(file, base=base).adapter for file in files]
    both, batch = AdaptedNetwork(base, adapters), as_batch(dataset.select([0, 1, 2]))
    assert list(both.properties) == ["size", "space_group", "density"]
    asked = Conditions(values={"size": torch.zeros(3)}, given={"size": torch.tensor([True] * 3)})
    t = torch.tensor([0.3, 0.5, 0.8])
    assert torch.equal(both(batch, t, asked).lattice, AdaptedNetwork(base, adapters[:1])(batch, t, asked).lattice)
    twice = run(tmp_path, recipe=changed(adapters="[first/best/adapter.safetensors]"), out="x")
    assert twice.exit_code == 2
    assert "comes with two adapters" in twice.stderr


def test_a_stopped_and_resumed_run_follows_the_same_path(tmp_path, dataset, base):
    assert run(tmp_path, out="whole").exit_code == 0
    half = RECIPE.replace("max_steps: 20", "max_steps: 7")
    assert run(tmp_path, recipe=half, out="parts").exit_code == 0
    assert run(tmp_path, "--resume", out="parts").exit_code == 0
    whole, parts = (load_file(tmp_path / out / "last" / "adapter.safetensors") for out in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)


def test_a_run_is_not_resumed_with_other_labels_or_properties(tmp_path, dataset, base):
    assert run(tmp_path, recipe=changed(max_steps=4)).exit_code == 0
    for recipe in (changed(properties="[{name: size, column: edge}, {name: space_group}]"), RECIPE):
        if recipe == RECIPE:
            dataset.labels["edge"] = dataset.labels["edge"] + 0.1
            dataset.write(tmp_path / "data.parquet")
        again = run(tmp_path, "--resume", recipe=recipe)
        assert again.exit_code == 2
        assert "another base, other properties or other labels" in " ".join(again.stderr.split())


def test_it_stops_when_nothing_gets_better(tmp_path, dataset, base):
    recipe = changed(max_steps=1000, validate_every_steps=2, optimizer="{lr: 1.0e-12}")
    result = run(tmp_path, "--json", recipe=recipe + "patience: 3\n")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] < 200


def test_dropout_of_labels_each_by_itself_or_together(dataset):
    configs = (PropertyConfig(name="size", column="edge"), PropertyConfig(name="density"))
    raw = [raw_labels(config, dataset) for config in configs]
    part, labels = labelled(learn_properties(configs, raw), raw, dataset)
    index = torch.arange(len(part)).repeat(100)
    uniform = torch.rand(len(index), 2, generator=torch.Generator().manual_seed(0))
    alone = labels.conditions(index, uniform=uniform, dropout=0.3).given
    known = labels.known["size"][index]
    assert torch.equal(labels.known["size"], torch.tensor(~np.isnan(dataset.labels["edge"])))
    assert not alone["size"][~known].any()
    assert float(alone["size"][known].float().mean()) == pytest.approx(0.7, abs=0.03)
    both = (alone["size"] & alone["density"])[known].float().mean()
    assert float(both) == pytest.approx(0.49, abs=0.03)
    joint = labels.conditions(index, uniform=uniform, dropout=0.3, joint=True).given
    assert torch.equal(joint["size"][known], joint["density"][known])
    assert all(given.all() for given in labels.conditions(index[known]).given.values())


def test_rare_labels_come_more_often_and_no_crystal_gets_lost():
    values = torch.tensor([0.0] * 980 + [1.0] * 15 + [0.5] * 4 + [7.0])
    known = torch.tensor([True] * 999 + [False])  # the last one is unknown, and no label to be rare
    groups = Property(name="space_group", kind="space_group").fitted([1.0, 2, 225])
    labels = PropertyLabels(
        values={"gap": values, "space_group": torch.ones(1000)}, known={"gap": known, "space_group": known}
    )
    gap = Property(name="gap").fitted(values[known])
    times = np.bincount(balanced([gap, groups], labels, most=4), minlength=1000)
    assert times.tolist() == [1] * 980 + [2] * 15 + [4] * 4 + [1]
    assert np.bincount(balanced([gap, groups], labels, most=10))[995:].tolist() == [5] * 4 + [1]
    assert balanced([gap, groups], labels, most=1).tolist() == list(range(1000))
    chosen = labels.select(np.array([996, 996, 999]))
    assert chosen.values["gap"].tolist() == [0.5, 0.5, 7.0]
    assert chosen.known["gap"].tolist() == [True, True, False]


def test_labels_follow_from_the_crystals_by_kind_whatever_the_name(dataset):
    dataset.labels["chemsys"] = np.ones(60)  # what the kind says goes before a column of that name
    system, group = (
        PropertyConfig(name="chemsys", kind="chemical_system"),
        PropertyConfig(name="sg", kind="space_group"),
    )
    raw = [raw_labels(system, dataset), raw_labels(group, dataset)]
    assert np.array_equal(raw[0], property_labels.systems_of(dataset.crystals))
    assert (raw[1] == 221).all()
    assert (raw_labels(PropertyConfig(name="groups", kind="space_group"), dataset)[:59] == 221).all()
    with pytest.raises(ValueError, match="no column 'x'"):
        raw_labels(PropertyConfig(name="sg", kind="space_group", column="x"), dataset)
    learnt = learn_properties([system, group], raw)
    assert [(p.kind, p.num_labels, p.groups) for p in learnt] == [
        ("chemical_system", 60, ()),
        ("space_group", 60, (221,)),
    ]
    tell = obtainers([system, group])
    assert np.array_equal(tell["chemsys"](dataset.crystals), raw[0])
    assert np.array_equal(tell["sg"](dataset.crystals), raw[1])


@pytest.mark.parametrize(
    ("settings", "unit"),
    [
        ({"name": "x", "unit": "gpa"}, "GPa"),
        ({"name": "x", "unit": "furlong"}, "furlong"),
        ({"name": "x"}, ""),
        ({"name": "dft_band_gap"}, "eV"),
        ({"name": "dft_band_gap", "unit": "mev"}, "meV"),
        ({"name": "x", "column": "dft_mag_density"}, "µB/Å³"),
        ({"name": "density"}, "g/cm³"),
        ({"name": "hhi_score"}, ""),
    ],
)
def test_units_are_spelled_as_usual_and_known_of_well_known_properties(settings, unit):
    assert unit_of(PropertyConfig(**settings)) == unit


def test_units_of_predictors_are_known():
    assert {predictor.unit for predictor in PREDICTORS.values()} <= USUAL.keys()


def test_any_column_of_the_data_can_be_learnt_and_any_name_be_a_chemical_system(tmp_path, dataset, base):
    dataset.labels["type"] = np.arange(60.0)
    dataset.write(tmp_path / "data.parquet")
    recipe = changed(properties="[{name: type}, {name: chemsys, kind: chemical_system}]")
    result = run(tmp_path, recipe=recipe)
    assert result.exit_code == 0, result.output
    result = run(tmp_path, "--resume", recipe=recipe.replace("max_steps: 20", "max_steps: 22"))
    assert result.exit_code == 0, result.output
    adapter = load_adapter(tmp_path / "run" / "last" / "adapter.safetensors", base=base).adapter
    assert {name: p.num_labels for name, p in adapter.properties.items()} == {"type": 48, "chemsys": 48}


def test_densities_in_another_unit_are_not_compared_with_derived_ones():
    assert list(obtainers([PropertyConfig(name="density", unit="g/cm3")])) == ["density"]
    assert list(obtainers([PropertyConfig(name="density", column="rho", unit="kg/m^3")])) == []


def test_labels_beyond_the_bounds_count_as_unknown(dataset):
    config = PropertyConfig(name="size", column="edge", low=4.0, high=7.0)
    edges = dataset.labels["edge"]
    known = (edges >= 4) & (edges <= 7)
    raw = raw_labels(config, dataset)
    assert np.array_equal(~np.isnan(raw), known)
    assert learn_properties([config], [raw])[0].num_labels == known.sum()


def test_strange_labels_are_said_before_training(tmp_path, dataset, base):
    dataset.labels["edge"] = np.where(np.arange(60) < 4, np.arange(60) + 1.0, np.nan)
    dataset.labels["modulus"] = 1e9 * np.arange(50, 110.0)
    dataset.write(tmp_path / "data.parquet")
    modulus = "  - {name: modulus, kind: log_scalar, unit: GPa}\n  - {name: space_group}"
    result = run(tmp_path, recipe=RECIPE.replace("  - {name: space_group}", modulus))
    assert result.exit_code == 0, result.output
    words = " ".join(result.stderr.split())
    assert "size has 4 labels: expect little of so few" in words
    assert "size has no label among the validation crystals" in words
    assert "the unit 'Å' of size is not known, so that nobody checked" in words
    assert "100% of the labels of modulus are not between 1 and 1000 GPa (their median is" in words
    stored = load_adapter(tmp_path / "run" / "best" / "adapter.safetensors", base=base)
    assert any("check their unit" in sentence for sentence in stored.provenance["runs"][-1]["warnings"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("column: edge", "column: price"), "no column 'price': it has edge, few, broken, late, early, groups"),
        (("column: edge", "column: few"), "size has 2 labels, at least 3 are needed"),
        (("column: edge", "column: broken"), "infinite"),
        (("{name: space_group}", "{name: beauty}"), "no column 'beauty'"),
        (("{name: space_group}", "{name: size}"), "no column 'size'"),
        (("kind: log_scalar", "kind: colour"), "of kind 'colour'"),
        (("base: base", "base: nowhere"), "does not exist"),
        (("name: size", "name: K.vrh"), "a property cannot be called 'K.vrh'"),
        (("base: base", "base: base\nfreeze_base: false\nadapters: [x.safetensors]"), "would not fit the new base"),
        (("dropout: 0.2", "dropout: 1.0"), "dropout is 1.0"),
        (("dropout: 0.2", "dropuot: 0.2"), "dropuot: no such setting"),
        (("base: base", "base: base\nadapters: [none.safetensors]"), "none.safetensors does not exist"),
        (("properties:", "properties: []\nignored:"), "ignored: no such setting"),
        (("column: edge", "column: edge, low: 50, high: 10"), "size has the bounds low 50 and high 10"),
        (("kind: log_scalar, unit: Å", "kind: chemical_system"), "size is of kind 'chemical_system', for which column"),
        (("{name: space_group}", "{name: chemical_system, kind: scalar}"), "must be one of chemical_system"),
        (("{name: space_group}", "{name: num_elements, kind: space_group}"), "must be one of scalar, log_scalar"),
        (("{name: space_group}", "{name: chemical_system, low: 3}"), "for which low means nothing: leave it out"),
        (("{name: space_group}", "{name: chemical_system, high: 3}"), "for which high means nothing"),
        (("{name: space_group}", "{name: chemical_system, share: 0.1}"), "for which share means nothing"),
        (("{name: space_group}", "{name: space_group, predictor: band-gap}"), "for which predictor means nothing"),
        (("column: edge", "column: late"), "in split 'val' size has the label -1, of which there is no logarithm"),
        (("column: edge", "column: early"), "in split 'train' size has the label -1, of which there is no logarithm"),
        (("{name: space_group}", "{name: space_group, column: groups}"), "in split 'val' space_group has labels that"),
        (
            ("unit: Å, column: edge", "unit: gpa, column: edge, predictor: band-gap"),
            "the labels of size are in GPa, and its predictor band-gap tells eV",
        ),
        (("{name: space_group}", "{name: dft_band_gap, column: edge, predictor: bulk-modulus}"), "are in eV, and its"),
    ],
)
def test_bad_recipes_are_one_sentence(tmp_path, dataset, base, change, words):
    result = run(tmp_path, recipe=RECIPE.replace(*change))
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_recipe_in_the_package_is_sound(tmp_path):
    from druse_train.cli import RECIPES

    config = read_recipe(RECIPES / "properties.yaml", FinetuneConfig)
    assert [p.name for p in config.properties] == ["chemical_system", "space_group", "hhi_score", "density"]


def test_calibration_compares_what_was_asked_with_what_came_out(tmp_path, dataset, base):
    recipe = changed(
        properties="[{name: size, column: edge}, {name: space_group}, {name: chemical_system}]",
        calibration="{num: 6, steps: 4, corrector_steps: 0}",
    )
    result = run(tmp_path, recipe=recipe)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert "follows_size" not in rows[-1]  # a column of the data that nothing tells
    for name in ("follows_space_group", "follows_chemical_system"):
        assert 0 <= float(rows[-1][name]) <= 1


def test_a_predictor_that_needs_gradients_has_them(tmp_path, dataset, base, monkeypatch):
    def slope(crystals):
        x = torch.tensor([crystal.volume for crystal in crystals], requires_grad=True)
        return torch.autograd.grad(x.square().sum(), x)[0].numpy()

    monkeypatch.setitem(PREDICTORS, "slope", Predictor(unit="Å³", predict=slope))
    recipe = changed(
        properties="[{name: size, column: edge, predictor: slope}]",
        calibration="{num: 6, steps: 4, corrector_steps: 0}",
    )
    result = run(tmp_path, recipe=recipe)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert float(rows[-1]["off_size"]) > 0


def test_who_stops_a_calibration_keeps_the_training_weights(tmp_path, dataset, base, monkeypatch):
    seen = {}

    def stop(model, *args, **kwargs):
        seen.update({name: value.clone() for name, value in model.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(finetuning, "calibrate", stop)
    run(tmp_path, recipe=changed(calibration="{num: 6}"))
    state = load_state(tmp_path / "run" / "state.safetensors")
    assert all(torch.equal(value, state.average[name]) for name, value in seen.items())
    assert any(not torch.equal(value, state.weights[name]) for name, value in seen.items())


class Obedient:
    """A network that sees iron in a cube of the density asked for, or of 1 g/cm³ where nothing is asked."""

    def __call__(self, noisy, t, conditions=None):
        asked = torch.ones(len(t))
        if conditions is not None:
            asked = torch.where(conditions.given["density"], 3 + 0.5 * conditions.values["density"], asked)
        edge = (noisy.num_atoms * 55.845 * 1.6605 / asked) ** (1 / 3)
        cube = edge[:, None, None] * torch.eye(3)
        process, n = CrystalProcess(), noisy.num_atoms
        iron = torch.zeros(len(noisy.atomic_numbers), NUM_CLASSES)
        iron[:, 25] = 100
        return Prediction(
            lattice=process.lattice.target(cube, noisy.lattice, t, n),
            frac_coords=torch.zeros_like(noisy.frac_coords),
            species_logits=iron,
        )


def test_a_share_of_the_labels_is_part_of_a_larger_one(dataset):
    raw = raw_labels(PropertyConfig(name="size", column="edge"), dataset)
    kept = {share: thinned(PropertyConfig(name="size", column="edge", share=share), raw) for share in (0.1, 0.5, 1)}
    known = {share: ~np.isnan(labels) for share, labels in kept.items()}
    assert [int(k.sum()) for k in known.values()] == [4, 22, 45]
    assert (known[0.5] >= known[0.1]).all()
    assert np.array_equal(kept[0.5][known[0.5]], raw[known[0.5]])


@pytest.mark.parametrize("guidance", [1.0, 0.0])
def test_who_obeys_is_told_from_who_does_not(dataset, guidance):
    values = torch.linspace(-1, 1, 60)
    labels = PropertyLabels(values={"density": values}, known={"density": values != values[0]})
    found = calibrate(
        Obedient(),
        {"density": Property(name="density", mean=3.0, std=0.5)},
        as_batch(dataset),
        labels,
        config=CalibrationConfig(num=20, guidance=guidance, steps=20, corrector_steps=0),
        obtain=obtainers([PropertyConfig(name="density")]),
        seed=1,
        device=torch.device("cpu"),
    )
    if guidance:
        assert found["follows_density"] > 0.99
        assert found["off_density"] < 0.02
    else:
        assert found["off_density"] == pytest.approx(2, abs=0.3)


def test_nothing_is_compared_of_properties_without_labels(dataset):
    nothing = torch.zeros(60, dtype=torch.bool)
    found = calibrate(
        Obedient(),
        {"density": Property(name="density", mean=3.0, std=0.5)},
        as_batch(dataset),
        PropertyLabels(values={"density": torch.zeros(60)}, known={"density": nothing}),
        config=CalibrationConfig(num=20),
        obtain=obtainers([PropertyConfig(name="density")]),
        seed=1,
        device=torch.device("cpu"),
    )
    assert found.keys() == {"follows_density", "off_density"}
    assert all(np.isnan(value) for value in found.values())


def test_it_goes_on_from_an_adapter_of_the_same_properties(tmp_path, dataset, base):
    assert run(tmp_path, out="first").exit_code == 0
    first = tmp_path / "first" / "best" / "adapter.safetensors"
    result = run(tmp_path, recipe=changed(init_from=first, max_steps=1, optimizer="{lr: 1.0e-12}"), out="second")
    assert result.exit_code == 0, result.output
    start, again = (load_adapter(path) for path in (first, tmp_path / "second" / "last" / "adapter.safetensors"))
    for name, value in start.adapter.state_dict().items():
        assert torch.allclose(again.adapter.state_dict()[name], value, atol=1e-6)
    steps = [entry["steps"] for entry in again.provenance["runs"]]
    assert steps == [*(entry["steps"] for entry in start.provenance["runs"]), 1]
    result = run(tmp_path, recipe=changed(init_from=first, properties="[{name: space_group}]"), out="third")
    assert result.exit_code == 2
    assert "start from an adapter of the same properties and data" in " ".join(result.stderr.split())


def test_a_predictor_that_nobody_knows_is_refused(tmp_path, dataset, base):
    result = run(tmp_path, recipe=changed(properties="[{name: size, column: edge, predictor: ruler}]"))
    assert result.exit_code == 2
    assert "there is no predictor 'ruler': choose of bulk-modulus" in " ".join(result.stderr.split())
