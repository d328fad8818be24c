import time

import numpy as np
import pytest
from druse_energetics.hull import ConvexHull
from druse_energetics.reference import load_hull
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

SYMBOLS = ["Li", "Fe", "O", "P", "S"]


def phase_diagram(compositions, energies):
    entries = [PDEntry(c, e * c.num_atoms) for c, e in zip(compositions, energies, strict=True)]
    return PhaseDiagram(entries)


@st.composite
def random_system(draw):
    n_elements = draw(st.integers(2, 4))
    symbols = SYMBOLS[:n_elements]
    counts = st.lists(st.integers(0, 5), min_size=n_elements, max_size=n_elements).filter(any)
    rows = draw(st.lists(counts, min_size=3, max_size=14))
    energies = draw(st.lists(st.floats(-4, 0.5), min_size=len(rows), max_size=len(rows)))
    target = draw(st.lists(st.integers(1, 6), min_size=n_elements, max_size=n_elements))
    compositions = [Composition(dict(zip(symbols, row, strict=True))) for row in rows]
    elements = [Composition(symbol) for symbol in symbols]
    return elements + compositions, [0.0] * n_elements + energies, Composition(dict(zip(symbols, target, strict=True)))


@settings(max_examples=40, deadline=None)
@given(random_system())
def test_hull_energy_is_that_of_a_phase_diagram(system):
    compositions, energies, target = system
    expected = phase_diagram(compositions, energies).get_hull_energy_per_atom(target)
    elements = [e for c, e in zip(compositions, energies, strict=True) if len(c) == 1]
    # pymatgen measures from the lowest entry of each element, we from zero
    assert min(elements) <= 0
    assert ConvexHull(compositions, energies).hull_energy(target) == pytest.approx(expected, abs=1e-6)


def test_analytic_binary():
    hull = ConvexHull(["Li", "O", "LiO"], [0.0, 0.0, -2.0])
    assert hull.energy_above_hull("LiO", -1.5) == pytest.approx(0.5, abs=1e-9)
    assert hull.energy_above_hull("LiO", -2.25) == pytest.approx(-0.25, abs=1e-9)
    assert hull.energy_above_hull("Li3O", 0.0) == pytest.approx(1.0, abs=1e-9)
    shares = hull.decomposition("Li3O")
    assert shares == pytest.approx({"Li": 0.5, "LiO": 0.5}, abs=1e-9)


def test_a_stable_phase_that_is_absent_lies_below_the_hull():
    compositions = ["Li", "O", "Li2O", "Li2O2"]
    energies = [0.0, 0.0, -2.0, -1.65]
    whole = ConvexHull(compositions, energies)
    without = ConvexHull(compositions[:2] + compositions[3:], energies[:2] + energies[3:])
    assert whole.energy_above_hull("Li2O", -2.0) == pytest.approx(0.0, abs=1e-9)
    diagram = PhaseDiagram(
        [PDEntry(Composition(c), e * Composition(c).num_atoms) for c, e in zip(compositions, energies, strict=True)]
    )
    oxide = next(e for e in diagram.stable_entries if e.composition.reduced_formula == "Li2O")
    expected = diagram.get_equilibrium_reaction_energy(oxide)
    assert without.energy_above_hull("Li2O", -2.0) == pytest.approx(expected, abs=1e-6)


def test_only_phases_of_the_system_take_part():
    hull = ConvexHull(["Li", "O", "Fe", "LiO", "LiFeO2", "UO2", "U"], [0, 0, 0, -1.0, -9.0, -9.0, 0])
    assert sorted(hull.ids[i] for i in hull.phases("LiO3")) == ["Li", "LiO", "O"]
    assert hull.hull_energy("Li2O2") == pytest.approx(-1.0)


def test_of_polymorphs_the_lowest_counts():
    hull = ConvexHull(["Li", "O", "LiO", "Li2O2", "LiO"], [0, 0, -1.0, -1.5, -1.2], ids=list("abcde"))
    assert hull.hull_energy("LiO") == pytest.approx(-1.5)
    assert list(hull.decomposition("LiO")) == ["d"]


def test_errors_name_what_is_missing():
    hull = ConvexHull(["Li", "O"], [0, 0])
    words = "the reference has no phase with Xe, so XeO has no distance to the hull"
    for compound in ("XeO", {"Xe": 0.5, "O": 0.5}, {"Xe": 2, "O": 2}, Composition("Xe2O2")):
        with pytest.raises(ValueError, match=words):
            hull.energy_above_hull(compound, -1.0)
    with pytest.raises(ValueError, match="no phase with Xe or Pu"):
        hull.hull_energy("PuXeO2")
    with pytest.raises(ValueError, match="so XeO3 has no"):
        hull.hull_energy("XeO3")
    with pytest.raises(ValueError, match="composition"):
        hull.hull_energy("Xx2O")
    with pytest.raises(ValueError, match="one of each"):
        ConvexHull(["Li", "O"], [0.0])
    with pytest.raises(ValueError, match="LiO is not finite"):
        ConvexHull(["Li", "LiO"], [0.0, np.nan])
    with pytest.raises(ValueError, match="cannot make"):
        ConvexHull(["LiO", "Li2O"], [0.0, 0.0]).hull_energy("Li3O")


def test_embedded_hull_agrees_with_phase_diagrams_of_real_systems():
    hull = load_hull()
    assert len(hull) == 34082
    rng = np.random.default_rng(0)
    for system in (["Li", "Fe", "O"], ["Mg", "Al", "Si", "O"], ["Cu", "Sn", "S", "Zn"], ["Na", "Cl", "P", "S"]):
        target = Composition(dict(zip(system, rng.integers(1, 6, len(system)), strict=True)))
        phases = hull.phases(target)
        compositions = [Composition(hull.ids[i]) for i in phases]
        expected = phase_diagram(compositions, hull.formation_energies_per_atom[phases]).get_hull_energy_per_atom(
            target
        )
        assert hull.hull_energy(target) == pytest.approx(expected, abs=1e-6)
        # every vertex lies on its own hull
        for i in phases[:8]:
            assert hull.energy_above_hull(hull.ids[i], hull.formation_energies_per_atom[i]) == pytest.approx(
                0, abs=1e-6
            )


def test_solver_prints_nothing(capfd):
    assert ConvexHull(["Na", "Cl", "NaCl"], [0.0, 0.0, -2.0]).hull_energy("Na2Cl") == pytest.approx(-4 / 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_faster_than_phase_diagrams(capsys):
    hull = load_hull()
    rng = np.random.default_rng(0)
    symbols = ["Li", "Na", "K", "Mg", "Ca", "Fe", "Mn", "Co", "O", "F", "P", "S", "Si", "Al", "Ti", "N", "C"]
    for n_elements in (3, 4, 5, 6, 7):
        ours = theirs = 0.0
        for _ in range(10):
            target = Composition(dict.fromkeys(rng.choice(symbols, n_elements, replace=False).tolist(), 1))
            start = time.process_time()
            energy = hull.hull_energy(target)
            ours += time.process_time() - start
            phases = hull.phases(target)
            entries = [
                PDEntry(c, e * c.num_atoms)
                for c, e in ((Composition(hull.ids[i]), hull.formation_energies_per_atom[i]) for i in phases)
            ]
            start = time.process_time()
            expected = PhaseDiagram(entries).get_hull_energy_per_atom(target)
            theirs += time.process_time() - start
            assert energy == pytest.approx(expected, abs=1e-6)
        with capsys.disabled():
            ratio = theirs / ours
            print(f"\n{n_elements} elements: {ours * 100:.2f} ms, PhaseDiagram {theirs * 100:.2f} ms: {ratio:.1f}x")
        assert theirs > (10 if n_elements >= 6 else 1) * ours
