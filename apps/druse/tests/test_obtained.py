"""What relaxed crystals have of what was asked for: read exactly or predicted, and a hit or not."""

import numpy as np
import pytest
from druse.discovering import obtain_targets, tell_groups_kept, warn_of_moving
from druse.obtained import exact, met, obtain, told_by
from druse_crystal.console import Display
from druse_crystal.io import write_extxyz
from druse_crystal.manifest import Manifest
from druse_evaluation.assessment import assess
from druse_evaluation.testing import lost, relaxed, salt, simple_cubic_salt, small_reference
from druse_generate.config import GenerateConfig, SymmetryRequest
from druse_generate.seed_request import SeedRequest
from druse_guidance import Property, parse_target

QUIET = Display(quiet=True)


@pytest.mark.parametrize(
    ("target", "values", "hits"),
    [
        ("ml_bulk_modulus=250", [225, 275, 224.9, 275.1, None], [True, True, False, False, False]),
        ("dft_mag_density>=0.1", [0.1, 0.0999, 0.4], [True, False, True]),  # no tolerance of a bound
        ("hhi_score<=1500", [1500.0, 1501.0], [True, False]),
        ("dft_band_gap=1..2", [0.9, 1.0, 2.0, 2.1], [False, True, True, False]),
        ("space_group=225", [225.0, 221.0, None], [True, False, False]),
        ("chemical_system=Ti-Ba-O", ["Ba-O-Ti", "Ba-O", "Ba-O-Sr-Ti", None], [True, False, False, False]),
    ],
)
def test_hits(target, values, hits):
    assert met(target, values).tolist() == hits


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Property(name="group", kind="space_group", groups=(225,)), "space_group"),
        (Property(name="system", kind="chemical_system"), "chemical_system"),
        (Property(name="density", unit="g/cm3"), "density"),
        (Property(name="density", unit="kg/m³"), None),
        (Property(name="dft_band_gap", unit="meV"), None),
        (Property(name="num_elements"), "num_elements"),
        (Property(name="hardness", unit="GPa"), None),
        (Property(name="space_group", unit=""), None),
    ],
)
def test_what_tells_a_property_of_a_model(asked, told):
    assert told_by(asked) == told


def test_hits_of_properties_by_their_kind():
    group = parse_target("group=225", {"group": Property(name="group", kind="space_group", groups=(62, 225))})
    assert met(group, [225.0, 221.0, None]).tolist() == [True, False, False]


def test_what_nothing_tells_is_said(tmp_path, capsys):
    relaxations = [relaxed(salt(5.64), -2.0)]
    assessment = assess([salt(5.6)], reference=small_reference(), relaxations=relaxations, judge="answers")
    labels = np.linspace(1000, 9000, 50)
    learnt = {
        "density": Property(name="density", unit="kg/m³").fitted(labels),
        "group": Property(name="group", kind="space_group", groups=(62, 225)),
    }
    manifest = Manifest(seed=0)
    found = obtain_targets(
        [parse_target(text, learnt) for text in ("density>=2000", "group=225")],
        assessment,
        out=tmp_path,
        display=QUIET,
        manifest=manifest,
    )
    assert found == {"space_group": [225]}
    assert manifest.results["obtained"] == {
        "density>=2000": None,
        "group=225": {"met": 1, "known": 1, "requested": 1},
    }
    assert "density>=2000: whether the crystals meet it is not known, for nothing tells it in kg/m³" in " ".join(
        capsys.readouterr().err.split()
    )


def test_what_relaxation_left_is_said(tmp_path, capsys):
    relaxations = [relaxed(salt(5.64), -2.0), lost("exploded", "grew"), relaxed(simple_cubic_salt(3.5), -1.95)]
    drawn = [salt(5.5), salt(9.0), simple_cubic_salt(3.2)]
    assessment = assess(drawn, reference=small_reference(), relaxations=relaxations, judge="answers")
    wishes = SymmetryRequest(space_group=194), SymmetryRequest(space_group=225), SymmetryRequest(symmetric=True)
    for symmetry, kept in zip(wishes, (0, 2, 2), strict=True):
        manifest = Manifest(seed=0)
        asked = GenerateConfig(symmetry=symmetry)
        tell_groups_kept(asked, assessment, display=Display(quiet=False), manifest=manifest)
        assert manifest.results["space_group_kept"] == {"met": kept, "requested": 3}
        assert f"{kept} of 3 once relaxed" in " ".join(capsys.readouterr().err.split())
    write_extxyz(tmp_path / "host.extxyz", [salt(5.64)])
    for keep, warned in (("lattice,species:Cl", True), ("species:Cl", True), ("species", False)):
        seed = SeedRequest(structure=tmp_path / "host.extxyz", keep=keep)
        asked, manifest = GenerateConfig(seed_structure=seed), Manifest(seed=0)
        tell_groups_kept(asked, assessment, display=Display(quiet=False), manifest=manifest)
        assert not manifest.results
        warn_of_moving(asked, Display(quiet=False))
        assert ("relaxation moves" in " ".join(capsys.readouterr().err.split())) is warned


def test_what_follows_from_crystals():
    crystals = [salt(5.6), None, simple_cubic_salt(3.5)]
    assert exact("space_group", crystals) == [225, None, 221]
    assert exact("chemical_system", crystals) == ["Cl-Na", None, "Cl-Na"]


def test_predictions_are_of_relaxed_crystals_and_kept(tmp_path):
    relaxations = [relaxed(salt(5.64), -2.0), lost("exploded", "grew"), relaxed(simple_cubic_salt(3.5), -1.95)]
    assessment = assess(
        [salt(5.5), salt(9.0), simple_cubic_salt(3.2)],
        reference=small_reference(),
        relaxations=relaxations,
        judge="answers",
    )
    given = []

    def edges(crystals):
        given.extend(crystals)
        return np.array([c.lattice[0, 0] or np.nan for c in crystals])  # that of the primitive cell is zero

    names = ("energy_above_hull", "ml_bulk_modulus", "chemical_system")
    for _ in range(2):
        found = obtain(names, assessment, predict={"ml_bulk_modulus": edges}, work=tmp_path, display=QUIET)
        assert found["energy_above_hull"] == [pytest.approx(0), None, pytest.approx(0.05)]
        assert found["ml_bulk_modulus"] == [None, None, 3.5]
        assert found["chemical_system"] == ["Cl-Na", None, "Cl-Na"]
    assert len(given) == 2
