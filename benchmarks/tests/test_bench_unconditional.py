import json
from dataclasses import dataclass

import numpy as np
import pytest
from druse_baselines import Substitution
from druse_benchmarks import unconditional as bench
from druse_benchmarks.sources import CLASSICAL, Files, Known, Model, Proposals, make_sources
from druse_crystal.console import Display
from druse_crystal.dataset import CrystalDataset, load_embedded
from druse_crystal.io import ReadResult, write_cif
from druse_crystal.manifest import Manifest
from druse_evaluate import judging
from druse_evaluate.config import EvaluationConfig, RelaxationConfig
from druse_evaluation.metrics import measure
from druse_evaluation.table import Assessment
from druse_evaluation.testing import AnsweringRelaxer, lost, relaxed, salt, simple_cubic_salt, small_reference
from druse_generate.config import SamplerConfig

GIVEN = [salt(5.5), simple_cubic_salt(3.4), salt(5.6, anion=35, cation=19)]
ANSWERS = [relaxed(salt(5.64), -2.0), relaxed(simple_cubic_salt(3.5), -1.95), lost("exploded", "the cell grew")]
QUIET = Display(quiet=True)


@dataclass(frozen=True)
class Given:
    name: str
    facts: dict | None = None

    def __call__(self, num, *, seed, folder, display, manifest):
        if self.facts is not None:
            manifest.settings["known"] = self.facts
        return [ReadResult(source=f"{i}", crystal=crystal, error=None, info={}) for i, crystal in enumerate(GIVEN)]


@pytest.fixture
def relaxers(monkeypatch):
    """Relaxers with prepared answers, in the order in which they were asked for."""
    made = []

    def make(config):
        made.append(AnsweringRelaxer(ANSWERS))
        return made[-1]

    monkeypatch.setattr(judging, "make_relaxer_for", make)
    monkeypatch.setattr(bench, "load_reference", lambda name, potential: small_reference())
    return made


def run(tmp_path, *sources, max_steps=500, num=4):
    return bench.unconditional(
        sources,
        num=num,
        seed=3,
        evaluation=EvaluationConfig(relaxation=RelaxationConfig(max_steps=max_steps)),
        out=tmp_path / "results",
        work=tmp_path / "work",
        display=QUIET,
    )


def cells(folder, label):
    line = next(x for x in (folder / "table.md").read_text().splitlines() if x.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_methods_come_one_by_one_and_stand_side_by_side(tmp_path, relaxers):
    folder = run(tmp_path, Given("pyxtal"))
    assert cells(folder, "requested") == ["4"]
    run(tmp_path, Given("druse"))
    run(tmp_path, Given("known", {"with_dft_hull_distance": 2, "dft_metastable": 1}))
    lines = (folder / "table.md").read_text().splitlines()
    assert lines[0] == "| | druse | pyxtal | known |"
    # of four asked for, three exist; one is on the hull, one 0.05 above it, one explodes; the first is the known one
    assert [c.split(" %")[0] for c in cells(folder, "read")] == ["75.0"] * 3
    assert [c.split(" %")[0] for c in cells(folder, "metastable (as judged)")] == ["50.0"] * 3
    assert [c.split(" %")[0] for c in cells(folder, "metastable, unique, novel (as judged)")] == ["25.0"] * 3
    assert "none of them counts as novel" in lines[-1]
    assert "50.0 % [9.5, 90.5] of them" in lines[-1]  # Wilson's interval for one of two
    content = json.loads((folder / "druse.json").read_text())
    assert content["energy_above_hull"] == [0.0, 0.05]
    assert content["seed"] == 3
    assert content["settings"]["num"] == 4
    assert content["machine"]["threads"] >= 1
    assert {"generation", "relaxation"} & content["timings"].keys()
    assert sorted(p.name for p in folder.iterdir()) == [
        "druse.json", "known.json", "picture.png", "pyxtal.json", "table.md",
    ]  # fmt: skip


def test_finished_relaxations_are_kept(tmp_path, relaxers):
    run(tmp_path, Given("druse"))
    table = (tmp_path / "results" / "unconditional" / "table.md").read_text()
    run(tmp_path, Given("druse"))
    assert len(relaxers) == 1
    assert relaxers[0].n_given == 3
    content = json.loads((tmp_path / "results" / "unconditional" / "druse.json").read_text())
    assert content["times_are_of_the_last_part_only"] is True
    assert (tmp_path / "results" / "unconditional" / "table.md").read_text() == table


def test_other_judges_stay_out_of_the_table(tmp_path, relaxers):
    run(tmp_path, Given("pyxtal"), max_steps=7)
    folder = run(tmp_path, Given("druse"))
    assert (folder / "table.md").read_text().startswith("| | druse |\n")


def test_metrics_come_back_from_json_as_they_were(tmp_path, relaxers):
    folder = run(tmp_path, Given("druse"))
    expected = measure(Assessment.read(tmp_path / "work" / "druse" / "crystals.parquet"))
    stored = bench.measured(json.loads((folder / "druse.json").read_text())["results"])
    assert [m.metric for m in stored] == [m.metric for m in expected]
    assert [str(m.value) for m in stored] == [str(m.value) for m in expected]


@pytest.fixture(scope="module")
def embedded():
    dataset = load_embedded()
    return dataset.select(np.flatnonzero(dataset.num_atoms <= 2))


def sources(methods, embedded, **options):
    return make_sources(
        methods, parents=embedded, parents_hash="small", held_out=embedded, sampler=SamplerConfig(steps=4), **options
    )


def test_words_become_sources(tmp_path, embedded, tiny_model):
    write_cif(tmp_path / "theirs" / "a.cif", GIVEN[0])
    made = sources(
        ["druse", f"druse:{tiny_model}", "substitution", "known", f"files:{tmp_path / 'theirs'}"],
        embedded,
        model=tiny_model,
    )
    assert [type(source) for source in made] == [Model, Model, Proposals, Known, Files]
    assert [s.name for s in made] == ["druse", f"druse-{tiny_model.name}", "substitution", "known", "theirs"]
    for source in made:
        results = source(3, seed=1, folder=tmp_path / source.name, display=QUIET, manifest=Manifest())
        assert len(results) == (1 if source.name == "theirs" else 3), source.name
        again = source(3, seed=1, folder=tmp_path / source.name, display=QUIET, manifest=Manifest())
        for a, b in zip(results, again, strict=True):
            assert a.source == b.source
            assert (a.crystal is None) == (b.crystal is None)
            if a.crystal is not None and b.crystal is not None:
                assert np.array_equal(a.crystal.frac_coords, b.crystal.frac_coords)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (["magic"], "no method 'magic'"),
        (["files:nowhere.zip"], "nowhere.zip does not exist"),
        (["files:"], "no method"),
        (["known", "known"], "two methods are called 'known'"),
    ],
)
def test_wrong_methods_are_refused(methods, words, embedded):
    with pytest.raises(ValueError, match=words):
        sources(methods, embedded)


def test_interrupted_proposals_continue(tmp_path, embedded):
    source = Proposals(name="substitution", proposer=Substitution(embedded.crystals), parents={"dataset": "small"})
    fresh = source(5, seed=2, folder=tmp_path / "a", display=QUIET, manifest=Manifest())
    source(2, seed=2, folder=tmp_path / "b", display=QUIET, manifest=Manifest())
    continued = source(5, seed=2, folder=tmp_path / "b", display=QUIET, manifest=Manifest())
    assert (tmp_path / "a" / "proposed.jsonl").read_bytes() == (tmp_path / "b" / "proposed.jsonl").read_bytes()
    assert [r.source for r in continued] == [r.source for r in fresh] == [f"substitution-{i:05d}" for i in range(5)]
    with pytest.raises(ValueError, match="other settings"):
        source(5, seed=4, folder=tmp_path / "b", display=QUIET, manifest=Manifest())


def test_proposals_start_from_the_training_split(embedded):
    (source,) = sources(["pyxtal"], embedded)
    assert isinstance(source, Proposals)
    assert source.parents["crystals"] == int((embedded.split == "train").sum())


@pytest.mark.parametrize("method", CLASSICAL)
def test_classical_methods_propose(method, tmp_path, embedded):
    small = embedded.select(np.flatnonzero(embedded.split == "train")[:60])
    (source,) = sources([method], small)
    assert isinstance(source, Proposals)
    assert type(source.proposer) is CLASSICAL[method]
    results = source(3, seed=1, folder=tmp_path, display=QUIET, manifest=Manifest())
    assert [r.source for r in results] == [f"{method}-{i:05d}" for i in range(3)]
    assert all(r.crystal is not None for r in results)


def test_known_crystals_are_the_held_out_ones(tmp_path, embedded):
    manifest = Manifest()
    (source,) = sources(["known"], embedded)
    results = source(20, seed=1, folder=tmp_path, display=QUIET, manifest=manifest)
    rows = {name: i for i, name in enumerate(embedded.ids.tolist())}
    chosen = [rows[r.source] for r in results]
    assert len(set(chosen)) == 20
    assert set(embedded.split[chosen]) == {"test"}
    above = embedded.labels["energy_above_hull"][chosen]
    assert manifest.settings["known"]["dft_metastable"] == sum(x <= 0.1 for x in above)
    with pytest.raises(ValueError, match="only"):
        source(10**6, seed=1, folder=tmp_path, display=QUIET, manifest=manifest)


def test_known_crystals_without_labels(tmp_path):
    dataset = CrystalDataset(ids=["a"], crystals=[GIVEN[0]], split=["test"])
    manifest = Manifest()
    Known(dataset=dataset)(1, seed=0, folder=tmp_path, display=QUIET, manifest=manifest)
    assert manifest.settings["known"] == {"held_out": 1, "with_dft_hull_distance": 0, "dft_metastable": 0}
