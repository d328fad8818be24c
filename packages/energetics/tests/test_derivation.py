import json
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.geometry import cell_to_cellpar
from druse_crystal.dataset import load_embedded
from druse_energetics.derivation import derive_calibration, main
from druse_energetics.reference import load_embedded_energies
from druse_energetics.relaxation import Relaxation

NUMBER = 120


@pytest.fixture(scope="module")
def known():
    """Embedded structures whose energy by the potential is known, so that nothing has to be relaxed."""
    dataset = load_embedded()
    energies = load_embedded_energies("sevennet-0")
    known = [name in energies and not name.startswith("element") for name in dataset.ids.tolist()]
    known &= np.isfinite(dataset.labels["energy_above_hull"])
    wanted = np.random.default_rng(0).permutation(np.flatnonzero(known))[:NUMBER]
    return dataset.select(wanted), [energies[dataset.ids[i]] for i in wanted]


def _key(crystal):
    return crystal.atomic_numbers.tobytes(), round(abs(np.linalg.det(crystal.lattice)), 4)


@pytest.fixture
def relaxed(known, monkeypatch):
    """A relaxer that leaves crystals as they are, and counts them."""
    dataset, energies = known
    energy_of = {_key(crystal): e for crystal, e in zip(dataset.crystals, energies, strict=True)}
    counted = []

    def make_relaxer(name):
        def relax(crystals, on_result):
            for k, crystal in enumerate(crystals):
                counted.append(crystal)
                energy = energy_of[_key(crystal)]
                on_result(
                    k,
                    Relaxation(
                        crystal=crystal,
                        energy=energy,
                        initial_energy=energy,
                        max_force=0.0,
                        n_steps=0,
                        status="not_converged" if k == 0 else "converged",
                    ),
                )

        return relax

    monkeypatch.setattr("druse_energetics.labelled_structures.make_relaxer", make_relaxer)
    return counted


def write_table(path, dataset, *, angles):
    crystals = dataset.crystals
    cell = {"cell_abc_angles": [cell_to_cellpar(c.lattice).tolist() for c in crystals]}
    pq.write_table(
        pa.table(
            {
                "source": ["left out" if i % 3 == 0 else "taken" for i in range(len(crystals))],
                **(cell if angles else {"lattice": [c.lattice.ravel().tolist() for c in crystals]}),
                "frac_coords": [c.frac_coords.ravel().tolist() for c in crystals],
                "atomic_numbers": [c.atomic_numbers.tolist() for c in crystals],
                "above": dataset.labels["energy_above_hull"],
            }
        ),
        path,
    )


@pytest.mark.parametrize("angles", [False, True])
def test_known_crystals_need_no_correction(known, relaxed, tmp_path, angles):
    """The judge is fitted to them: their DFT labels and judged values agree, whichever form the cells have."""
    write_table(tmp_path / "table.parquet", known[0], angles=angles)
    call = ["calibration", "sevennet-0", str(tmp_path / "table.parquet"), "--label", "above", "--against", "known"]
    call += ["--where", "source=taken", "--relaxations", str(tmp_path / "relaxed.jsonl"), "--out", str(tmp_path)]
    main(call)
    content = json.loads((tmp_path / "calibration-sevennet-0-known.json").read_text())
    rows = NUMBER - len(range(0, NUMBER, 3))
    assert content["provenance"]["rows"] == rows
    assert content["provenance"]["statuses"] == {"converged": rows - 1, "not_converged": 1}
    assert content["raw"]["n"] == rows - 1
    assert abs(content["raw"]["bias"]) < 0.01
    assert content["raw"]["mae"] < 0.03
    assert len(relaxed) == rows
    main(call)  # again: everything is in the journal
    assert len(relaxed) == rows
    assert json.loads((tmp_path / "calibration-sevennet-0-known.json").read_text()) == content


def test_other_tables_and_columns_are_refused(known, relaxed, tmp_path):
    table, journal = tmp_path / "table.parquet", tmp_path / "relaxed.jsonl"
    write_table(table, known[0], angles=False)
    derive = partial(
        derive_calibration, "sevennet-0", table, label="above", against="known", relaxations=journal, folder=tmp_path
    )
    derive()
    with pytest.raises(ValueError, match="no column 'origin'"):
        derive(where="origin=x")
    write_table(table, known[0].select(np.arange(NUMBER - 1)), angles=False)
    with pytest.raises(ValueError, match="other settings"):
        derive()
