"""Corrections of the published evaluation code, entry by entry, and what does not mix."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from druse_crystal.crystal import Crystal
from druse_energetics.correction_scheme import (
    SchemeCorrections,
    adjustments,
    correct,
    correction,
    materials_project_parameters,
    scheme_to_apply,
)
from druse_energetics.hull import ConvexHull
from druse_energetics.reference import Reference
from druse_energetics.reference_entry import ReferenceEntry


@pytest.fixture(scope="module")
def published():
    """The published evaluation fixtures."""
    path = Path(__file__).parent / "data" / "published_corrections.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))


@pytest.fixture(scope="module")
def entries(published):
    names = ("lattice", "frac_coords", "atomic_numbers")
    return [
        ReferenceEntry(
            id=str(i), source=str(i), crystal=Crystal(**{n: np.array(s[n]) for n in names}), energy=s["energy"]
        )
        for i, s in enumerate(published["structures"])
    ]


def test_run_types_and_hubbards(published, entries):
    found = [materials_project_parameters(entry.crystal) for entry in entries]
    assert [f["run_type"] for f in found] == published["run_type"]
    assert [f["hubbards"] for f in found] == published["hubbards"]


@pytest.mark.parametrize("scheme", ["MP2020", "TRI2024"])
def test_published_corrections(published, entries, scheme):
    corrected = list(correct(entries, scheme))
    assert {entry.status for entry in corrected} == {"kept"}
    assert [e.correction for e in corrected] == pytest.approx(published[scheme]["correction"], abs=1e-9)
    terms = [adjustments(e.crystal, e.energy, scheme) for e in entries]
    expected = [[energy for _, energy in found] for found in published[scheme]["adjustments"]]
    assert [[t.energy for t in found] for found in terms] == [pytest.approx(found, abs=1e-9) for found in expected]
    if scheme == "MP2020":
        assert [[t.name for t in found] for found in terms] == [
            [name for name, _ in found] for found in published[scheme]["adjustments"]
        ]


@pytest.mark.parametrize("scheme", ["identity", "MP2020", "TRI2024"])
def test_published_energies_above_hull(published, entries, scheme):
    """The published code took corrected energies to the reference as it was given."""
    lowest = {}
    for entry in published["reference"]:
        if len(entry["composition"]) == 1:
            symbol, n = next(iter(entry["composition"].items()))
            lowest[symbol] = min(entry["energy"] / n, lowest.get(symbol, np.inf))
    formation = [
        (e["energy"] - sum(n * lowest[s] for s, n in e["composition"].items())) / sum(e["composition"].values())
        for e in published["reference"]
    ]
    applied = "none" if scheme == "identity" else scheme
    reference = Reference(
        name="published",
        potential="synthetic",
        hull=ConvexHull([e["composition"] for e in published["reference"]], formation),
        corrections=SchemeCorrections(potential="synthetic", scheme=applied, elements=lowest),
        crystals=[],
        ids=[],
    )
    found = [reference.energy_above_hull(entry.crystal, entry.energy) for entry in entries]
    assert found == pytest.approx(published[scheme]["energy_above_hull"], abs=1e-6)


def test_the_run_decides_what_applies(entries):
    oxide = next(e for e in entries if materials_project_parameters(e.crystal)["run_type"] == "GGA+U")
    other = ReferenceEntry(
        id="x", source="x", crystal=oxide.crystal, energy=-9.0, parameters={"run_type": "GGA", "hubbards": {}}
    )
    assert correction(oxide.crystal, -9.0, "TRI2024", parameters=other.parameters) == pytest.approx(-9.0 * 0.108)
    (refused,) = correct([other], "MP2020")  # an oxide of a +U metal that was run without U
    assert (refused.status, refused.correction) == ("incompatible", None)
    assert "Invalid U value" in refused.message
    foreign = ReferenceEntry(id="y", source="y", crystal=oxide.crystal, energy=-9.0, parameters={"run_type": "r2SCAN"})
    assert {next(correct([foreign], s)).status for s in ("MP2020", "TRI2024")} == {"incompatible"}
    with pytest.raises(ValueError, match="choose one of none"):
        list(correct([other], "MP2030"))


@pytest.mark.parametrize(
    ("hull", "energies", "applied"),
    [(s, "none", s) for s in ("none", "MP2020", "TRI2024")] + [("MP2020", "MP2020", "none")],
)
def test_energies_are_brought_to_the_hull(hull, energies, applied):
    assert scheme_to_apply(hull, energies, reference="r", potential="p") == applied


@pytest.mark.parametrize(("hull", "energies"), [("none", "MP2020"), ("TRI2024", "MP2020"), ("MP2020", "TRI2024")])
def test_what_does_not_mix(hull, energies):
    with pytest.raises(ValueError, match="do not mix: build the reference"):
        scheme_to_apply(hull, energies, reference="r", potential="p")
