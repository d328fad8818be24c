import json

import numpy as np
import pytest
from druse_crystal.composition import composition
from druse_crystal.crystal import Crystal
from druse_crystal.dataset import load_embedded
from druse_crystal.io import write_extxyz
from druse_energetics.built_reference import BuiltReference, build_reference, merge_references, summary
from druse_energetics.correction_scheme import correction
from druse_energetics.materials_project import query_entries
from druse_energetics.reference import load_reference


def crystal(*numbers, length=4.0):
    n = len(numbers)
    coords = np.linspace(0, 1, n, endpoint=False)[:, None] * [1.0, 1.0, 1.0]
    return Crystal(lattice=length * np.eye(3), frac_coords=coords, atomic_numbers=np.array(numbers))


MG, O2, MGO, FE, FEO = crystal(12), crystal(8, 8), crystal(12, 8), crystal(26), crystal(26, 8)
NAMED = {"mg": (MG, -1.6), "o": (O2, -9.9), "mgo": (MGO, -12.0), "fe": (FE, -8.4), "feo": (FEO, -14.0)}


def write(path, names, **changes):
    rows = {name: NAMED[name] for name in names} | changes
    info = [{"id": name, "energy": None if energy is None else float(energy)} for name, (_, energy) in rows.items()]
    write_extxyz(path, [c for c, _ in rows.values()], info=info)
    return path


def build(folder, names=("mg", "o", "mgo"), name="mine", **options):
    reference = build_reference([write(folder / f"{name}.extxyz", names)], **options)
    path = folder / f"{name}.parquet"
    reference.write(path)
    return path


@pytest.mark.parametrize("scheme", ["MP2020", "TRI2024"])
def test_uncorrected_energies_are_corrected_on_both_sides(tmp_path, scheme):
    reference = load_reference(build(tmp_path, NAMED, scheme=scheme))
    corrected = {name: energy + correction(c, energy, scheme) for name, (c, energy) in NAMED.items()}
    expected = (corrected["feo"] - corrected["fe"] - corrected["o"] / 2) / 2
    assert reference.formation_energy(FEO, -14.0) == pytest.approx(expected)
    assert reference.energy_above_hull(FEO, -14.0) == pytest.approx(0, abs=1e-7)
    assert reference.energy_above_hull(FEO, -13.0) == pytest.approx(
        (1.0 if scheme == "MP2020" else 1.108) / 2, abs=1e-7
    )
    assert scheme in reference.name
    assert "PBE" in reference.name


def test_a_corrected_hull_and_uncorrected_energies_do_not_mix(tmp_path):
    plain, mp2020 = build(tmp_path), build(tmp_path, name="mp", scheme="MP2020")
    tri = build(tmp_path, name="tri", scheme="TRI2024")
    for path in (plain, tri):
        with pytest.raises(ValueError, match=r"energies of chgnet are corrected by MP2020.*do not mix: build"):
            load_reference(path, potential="chgnet")
    judged = load_reference(mp2020, potential="chgnet")  # its energies hold the correction: nothing is added
    own = -12.0 + correction(MGO, -12.0, "MP2020")
    assert judged.energy_above_hull(MGO, own) == pytest.approx(0, abs=1e-7)
    with pytest.raises(ValueError, match="load it with potential='sevennet-0'"):
        judged.refuse_other_judge("sevennet-0")
    judged.refuse_other_judge("chgnet")
    with pytest.raises(ValueError, match="of 'mace' hold corrections is not known"):
        load_reference(mp2020, potential="mace")
    assert load_reference(mp2020, potential="mace", energies="none").energy_above_hull(MGO, -12.0) == pytest.approx(
        0, abs=1e-7
    )


def test_energies_of_another_potential_or_level(tmp_path):
    own = build(tmp_path, potential="sevennet-l3i5")
    with pytest.raises(ValueError, match=r"energies of sevennet-l3i5.*--potential sevennet-l3i5"):
        load_reference(own, potential="sevennet-0")
    assert load_reference(own, potential="sevennet-l3i5").energy_above_hull(MGO, -12.0) == pytest.approx(0, abs=1e-7)
    other = build(tmp_path, name="scan", level_of_theory="r2SCAN")
    with pytest.raises(ValueError, match="energies of r2SCAN, sevennet-0 imitates PBE"):
        load_reference(other)
    with pytest.raises(ValueError, match="add --scheme MP2020"):
        build(tmp_path, name="chgnet", potential="chgnet")
    reference = BuiltReference.read(build(tmp_path, name="chgnet", potential="chgnet", scheme="MP2020"))
    assert reference.dataset.labels["energy_per_atom"][2] == pytest.approx(-6.0)  # they hold it already


def test_round_trip_and_merge(tmp_path):
    a = build(tmp_path, ["mg", "o", "mgo"], name="a", scheme="MP2020")
    b = build(tmp_path, ["o", "fe", "feo"], name="b", scheme="MP2020")
    stored = BuiltReference.read(a)
    assert stored.dataset.ids.tolist() == ["mg", "o", "mgo"]
    assert stored.dataset.labels["correction_per_atom"] == pytest.approx([0, 0, -0.687 / 2])
    assert dict(stored.description.statuses) == {"kept": 3}
    facts = summary(stored)
    assert (facts["scheme"], facts["structures"], facts["elements"]) == ("MP2020", 3, ["Mg", "O"])
    assert len(facts["sources"][0]["sha256"]) == 64
    merged = merge_references([a, b])
    merged.write(tmp_path / "both.parquet")
    assert merged.dataset.ids.tolist() == ["mg", "o", "mgo", "fe", "feo"]
    assert dict(merged.description.statuses) == {"kept": 5, "duplicate": 1}
    assert [source["name"] for source in merged.description.sources] == ["a.extxyz", "b.extxyz"]
    whole = load_reference(build(tmp_path, NAMED, name="whole", scheme="MP2020"))
    both = load_reference(tmp_path / "both.parquet")
    for name, (c, energy) in NAMED.items():
        assert both.formation_energy(c, energy) == pytest.approx(whole.formation_energy(c, energy)), name
    plain = build(tmp_path, name="plain")
    with pytest.raises(ValueError, match=r"a\.parquet \(PBE, MP2020\) and .*plain\.parquet \(PBE, not corr"):
        merge_references([a, plain])
    with pytest.raises(ValueError, match="two references"):
        merge_references([a])


def test_an_id_that_occurs_twice(tmp_path):
    frames = [MG, MG, crystal(12, length=5.0)]
    write_extxyz(tmp_path / "x.extxyz", frames, info=[{"id": "a", "energy": e} for e in (-1.6, -1.6, -1.5)])
    reference = build_reference([tmp_path / "x.extxyz"])
    assert reference.dataset.ids.tolist() == ["a", "a (2)"]
    assert [(e.status, e.id) for e in reference.left] == [("duplicate", "a")]
    assert dict(reference.description.statuses) == {"kept": 2, "duplicate": 1}


def test_a_missing_element_costs_only_its_own_crystals(tmp_path):
    reference = load_reference(build(tmp_path, ["mg", "o", "mgo", "feo"]))
    assert reference.energy_above_hull(MGO, -12.0) == pytest.approx(0, abs=1e-7)
    with pytest.raises(ValueError, match="no energy of the pure element Fe"):
        reference.energy_above_hull(FEO, -14.0)
    assert len(reference.crystals) == 4
    facts = summary(BuiltReference.read(tmp_path / "mine.parquet"))
    assert (facts["elements_without_zero"], facts["off_hull"]) == (["Fe"], 1)
    assert facts["statuses"] == {"kept": 3, "no_reference": 1}
    beside = (tmp_path / "mine.statuses.csv").read_text().splitlines()
    assert beside[1:] == ["feo,mine.extxyz#4,no_reference,there is no energy of the pure element Fe"]


def test_an_element_that_another_reference_brings_puts_crystals_on_the_hull(tmp_path):
    without, iron = build(tmp_path, ["mg", "o", "feo"], name="a"), build(tmp_path, ["fe"], name="b")
    assert dict(BuiltReference.read(without).description.statuses) == {"kept": 2, "no_reference": 1}
    merged = merge_references([without, iron])
    assert dict(merged.description.statuses) == {"kept": 4}
    assert merged.left == []


def test_a_merge_keeps_why_a_structure_has_no_energy(tmp_path):
    runs = build_reference([iron_oxides(tmp_path / "runs.json", GGA, GGA_U, R2SCAN)], scheme="MP2020")
    runs.write(tmp_path / "runs.parquet")
    silent = write(tmp_path / "x.extxyz", ["mg", "o", "mgo"], known=(crystal(12, 12, 8), None))
    build_reference([silent], scheme="MP2020").write(tmp_path / "silent.parquet")
    parts = [tmp_path / "runs.parquet", tmp_path / "silent.parquet"]
    expected = {entry.id: (entry.status, entry.message) for entry in runs.left}
    expected["known"] = ("no_energy", "it has no energy_per_atom")
    assert sorted(status for status, _ in expected.values()) == ["incompatible", "incompatible", "no_energy"]
    once = merge_references(parts)
    once.write(tmp_path / "once.parquet")
    again = merge_references([tmp_path / "once.parquet", build(tmp_path, ["mg"], name="mg", scheme="MP2020")])
    for merged in (once, again):
        left = {entry.id: (entry.status, entry.message) for entry in merged.left if entry.status != "duplicate"}
        assert left == expected
        assert merged.description.statuses["incompatible"] == 2


def test_disorder_is_a_status_of_its_own(tmp_path):
    from pymatgen.core import Lattice, Structure

    half = Structure(Lattice.cubic(4), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    content = [{"entry_id": "half", "energy": -8.0, "structure": half.as_dict()}]
    (tmp_path / "half.json").write_text(json.dumps(content))
    reference = build_reference([write(tmp_path / "x.extxyz", ["mg", "o"]), tmp_path / "half.json"])
    assert dict(reference.description.statuses) == {"kept": 2, "disordered": 1}
    assert "disordered or partly occupied: order the structure first" in reference.left[0].message


def test_nothing_on_the_hull(tmp_path):
    with pytest.raises(ValueError, match="no energy of a pure element"):
        load_reference(build(tmp_path, ["mgo"], name="nothing"))


def test_every_entry_has_a_status(tmp_path):
    path = write(tmp_path / "x.extxyz", ["mg", "o", "mgo"], known=(crystal(12, 12, 8), None))
    path.write_text(path.read_text() + "7\nLattice=")
    reference = build_reference([path])
    assert dict(reference.description.statuses) == {"kept": 3, "no_energy": 1, "unreadable": 1}
    assert [entry.status for entry in reference.left] == ["no_energy", "unreadable"]
    beside = reference.write(tmp_path / "x.parquet")
    assert len(beside.read_text().splitlines()) == 3
    assert len(load_reference(tmp_path / "x.parquet").crystals) == 4  # known, though nothing says how stable


def test_energies_of_pymatgen_entries(tmp_path):
    from druse_crystal.convert import to_pymatgen

    content = [
        {"entry_id": i, "energy": energy, "correction": extra, "structure": to_pymatgen(c).as_dict()}
        for i, c, energy, extra in (("a", MG, -1.6, 0.0), ("b", O2, -9.9, 0.0), ("c", MGO, -12.0, -0.7))
    ]
    content.append(content[-1] | {"entry_id": "d", "energy": 10**400})
    (tmp_path / "entries.json").write_text(json.dumps(content))
    given = build_reference([tmp_path / "entries.json"], scheme="MP2020", corrected=True)
    ours = build_reference([tmp_path / "entries.json"], scheme="MP2020")
    assert given.dataset.labels["energy_per_atom"][:3] == pytest.approx([-1.6, -4.95, -6.35])
    assert ours.dataset.labels["energy_per_atom"][:3] == pytest.approx([-1.6, -4.95, -6.0 - 0.687 / 2])
    assert [(entry.id, entry.status) for entry in (*given.left, *ours.left)] == [("d", "no_energy")] * 2


def iron_oxides(path, *runs):
    """JSON of pymatgen's entries: the elements, and FeO by runs of each type."""
    from druse_crystal.convert import to_pymatgen
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    given = [("fe", FE, -8.4, {"run_type": "GGA"}), ("o", O2, -9.9, {"run_type": "GGA"})]
    given += [(f"feo-{i}", FEO, -14.0, parameters) for i, parameters in enumerate(runs)]
    entries = [
        ComputedStructureEntry(to_pymatgen(c), energy, parameters=parameters, entry_id=name).as_dict()
        for name, c, energy, parameters in given
    ]
    path.write_text(json.dumps(entries))
    return path


GGA = {"run_type": "GGA", "hubbards": {}}
GGA_U = {"run_type": "GGA+U", "hubbards": {"Fe": 5.3, "O": 0.0}}
R2SCAN = {"run_type": "r2SCAN"}


def test_the_run_of_an_entry_chooses_its_corrections(tmp_path):
    path = iron_oxides(tmp_path / "x.json", GGA, GGA_U, R2SCAN, {}, {"run_type": "PBE+U"}, {"hubbards": {"Fe": "x"}})
    expected = {
        "MP2020": {"feo-1": (-14.0 - 0.687 - 2.256) / 2, "feo-3": (-14.0 - 0.687 - 2.256) / 2},
        "TRI2024": {"feo-0": -14.0 * 1.108 / 2, "feo-1": (-14.0 * 1.108 - 3.189) / 2},
        "none": {f"feo-{i}": -7.0 for i in (0, 1, 3, 4)},
    }
    for scheme, energies in expected.items():
        reference = build_reference([path], scheme=scheme)
        found = dict(
            zip(reference.dataset.ids.tolist(), reference.dataset.labels["energy_per_atom"].tolist(), strict=True)
        )
        assert {name: found[name] for name in energies} == pytest.approx(energies, abs=1e-3), scheme
        off = {entry.id: (entry.status, entry.message) for entry in reference.left}
        assert off["feo-2"][0] == "incompatible"
        assert "run of the type r2SCAN, which does not mix with energies of PBE" in off["feo-2"][1]
        assert np.isnan(found["feo-2"])
        assert ("feo-0" in off, "feo-5" in off) == ((True, True) if scheme == "MP2020" else (False, False)), scheme
        if scheme == "MP2020":
            assert "Invalid U value of 0.0 on Fe, expected 5.3" in off["feo-0"][1]


def test_the_run_of_an_entry_against_what_is_said_of_all(tmp_path):
    path = iron_oxides(tmp_path / "x.json", GGA_U, R2SCAN)
    other = build_reference([path], level_of_theory="r2SCAN")
    assert dict(other.description.statuses) == {"kept": 0, "incompatible": 3, "no_reference": 1}
    own = build_reference([path], potential="sevennet-0", scheme="MP2020")  # its energies are of no run
    assert dict(own.description.statuses) == {"kept": 4}
    formation = json.loads(path.read_text())
    for entry in formation:
        entry["formation_energy_per_atom"] = 0.0
    path.write_text(json.dumps(formation))
    assert build_reference([path], scheme="MP2018").description.statuses["incompatible"] == 1
    frame = write(tmp_path / "x.extxyz", ["mg", "o", "mgo"])
    frame.write_text(frame.read_text().replace("id=mgo", "id=mgo run_type=r2SCAN"))
    assert dict(build_reference([frame]).description.statuses) == {"kept": 2, "incompatible": 1}


def test_the_embedded_set_with_its_hull(tmp_path):
    build_reference(["embedded"]).write(tmp_path / "e.parquet")
    ours, shipped = load_reference(tmp_path / "e.parquet"), load_reference("embedded")
    assert ours.scheme == "MP2018"
    assert len(ours.crystals) == len(shipped.crystals)
    dataset = load_embedded()
    above = dataset.labels["energy_above_hull"]
    known = shipped.hull.elements  # not xenon
    common = [i for i, c in enumerate(shipped.crystals) if known.issuperset(c.atomic_numbers.tolist())]
    some = np.random.default_rng(0).choice(common, 40, replace=False).tolist()
    lower = [i for i in common if above[i] < -0.001][:20]  # by DFT's own label below the hull by composition
    pairs = [
        [reference.hull.hull_energy(composition(shipped.crystals[i])) for reference in (ours, shipped)]
        for i in some + lower
    ]
    dropped = np.array([theirs - mine for mine, theirs in pairs])
    assert dropped.min() > -1e-9
    assert np.mean(dropped[:40] < 1e-7) > 0.75
    assert len(lower) == 20
    assert (dropped[40:] >= -above[lower] - 1e-5).all()
    c = shipped.crystals[some[0]]
    assert ours.formation_energy(c, -5.0 * c.num_atoms) == shipped.formation_energy(c, -5.0 * c.num_atoms)
    with pytest.raises(ValueError, match="corrected by MP2018, --scheme says MP2020"):
        build_reference(["embedded"], scheme="MP2020")


class Client:
    """Stands in for the client of mp-api: answers with pymatgen entries, remembers what was asked."""

    def get_entries_in_chemsys(self, elements, additional_criteria):
        from druse_crystal.convert import to_pymatgen
        from pymatgen.entries.computed_entries import ComputedStructureEntry, ConstantEnergyAdjustment

        self.asked = elements, additional_criteria
        if elements == ["Xe"]:
            raise RuntimeError("503 service\nunavailable")
        own, foreign = (ConstantEnergyAdjustment(-0.7, name=name) for name in ("MP2020 anion", "MIT anion"))
        return [
            ComputedStructureEntry(to_pymatgen(MG), -1.6, entry_id="mp-1-GGA", data={"material_id": "mp-1"}),
            ComputedStructureEntry(to_pymatgen(MGO), -12.0, energy_adjustments=[own], entry_id="mp-2"),
            ComputedStructureEntry(to_pymatgen(MGO), -12.0, energy_adjustments=[foreign], entry_id="mp-3"),
        ]


def test_entries_of_the_materials_project():
    client = Client()
    found = list(query_entries("O-Mg", client=client))
    assert client.asked == (["Mg", "O"], {"thermo_types": ["GGA_GGA+U"]})
    assert [e.id for e in found] == ["mp-1", "mp-2", "mp-3"]
    assert [e.status for e in found] == ["kept", "kept", "incompatible"]
    assert (found[1].energy, found[1].correction) == (-12.0, pytest.approx(-0.7))
    with pytest.raises(ValueError, match="503 service unavailable"):
        query_entries("Xe", client=client)
    with pytest.raises(ValueError, match="no chemical system"):
        query_entries("Mg-Zz", client=client)


def test_a_query_needs_a_key_and_the_client(monkeypatch):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    with pytest.raises(ValueError, match="set the environment variable MP_API_KEY"):
        build_reference(["materials-project"], chemical_systems=["Mg-O"])
    monkeypatch.setenv("MP_API_KEY", "x" * 32)
    monkeypatch.setitem(__import__("sys").modules, "mp_api.client", None)
    with pytest.raises(ValueError, match="pip install mp-api"):
        build_reference(["materials-project"], chemical_systems=["Mg-O"])
    with pytest.raises(ValueError, match="--chemical-system"):
        build_reference(["materials-project"])


def test_files_that_are_no_references(tmp_path):
    whole = build(tmp_path)
    data = whole.read_bytes()
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(data[: len(data) // 2])
    for read in (BuiltReference.read, load_reference):
        with pytest.raises(ValueError, match=r"cut\.parquet"):
            read(cut)
    from druse_crystal.dataset import CrystalDataset

    CrystalDataset(ids=["a"], crystals=[MG]).write(tmp_path / "plain.parquet")
    with pytest.raises(ValueError, match="no built reference"):
        BuiltReference.read(tmp_path / "plain.parquet")
    (tmp_path / "x.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="druse reference build"):
        load_reference(tmp_path / "x.gz")
