"""Ten thousand files of anybody: broken ones, disorder, rare elements, duplicates. Each gets its row."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from druse_crystal import Crystal
from druse_crystal.dataset import load_embedded
from druse_crystal.io import write_cif
from druse_evaluate.cli import app
from druse_evaluation.table import Assessment
from typer.testing import CliRunner

CELL = (
    "data_x\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c {c}\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
    "_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'P 1'\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
    "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
)
DISORDERED = (
    CELL.format(c=4) + "Fe1 Fe 0 0 0 0.5\nNi1 Ni 0 0 0 0.5\n",
    CELL.format(c=4) + "Na1 Na 0 0 0 0.7\nCl1 Cl 0.5 0.5 0.5 1\n",
)
BROKEN = (
    "",
    "not a crystal at all\n",
    "data_x\n_cell_length_a 3\n",
    CELL.format(c=4),
    CELL.format(c=4) + "Xx1 Xx 0 0 0 1\n",
    CELL.format(c=4) + "Na1 Na 0 0 nan 1\n",
    CELL.format(c=0) + "Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1\n",
    *DISORDERED,
    "\x00\x01\x02 binary \x7f",
)
RARE = (2, 18, 36, 54, 61, 89, 91, 92, 94)  # noble gases, Pm, actinoids
UNKNOWN_TO_THE_JUDGE = 98  # Cf


def rare(z: int) -> Crystal:
    """Oxide of an element that hardly anything was trained on, in the structure of caesium chloride."""
    return Crystal(
        lattice=3.2 * np.eye(3), frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), atomic_numbers=np.array([z, 8])
    )


def files(folder: Path, total: int) -> Counter[str]:
    """Write them; one in twenty is broken or disordered, one in a hundred rare. Gives how many there are of each."""
    known = load_embedded().crystals
    kinds: Counter[str] = Counter()
    for i in range(total):
        path = folder / str(i % 7) / f"{i // 7 % 50 if i % 3 else i}-{i}.cif"
        if i % 20 == 0:
            text = BROKEN[i // 20 % len(BROKEN)]
            kinds["disordered" if text in DISORDERED else "broken"] += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            continue
        if i % 100 == 1:
            z = (*RARE, UNKNOWN_TO_THE_JUDGE)[i // 100 % (len(RARE) + 1)]
            kinds["unknown" if z == UNKNOWN_TO_THE_JUDGE else "rare"] += 1
            crystal = rare(z)
        else:
            kinds["known"] += 1
            crystal = known[i % min(len(known), total // 2)]
        write_cif(path, crystal, symprec=None)
    return kinds


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("total", [100, 10_000])
def test_every_file_has_its_row(tmp_path, total):
    kinds = files(tmp_path / "in", total)
    lost = kinds["broken"] + kinds["disordered"]
    assert lost == total // 20
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "in"), "-o", str(out), "--no-relax", "--json", "-q"])
    assert result.exit_code == 0, result.output

    assessment = Assessment.read(out / "crystals.parquet")
    assert len(assessment) == total
    status = Counter(assessment.strings("status"))
    assert status["unreadable"] == kinds["broken"]
    assert status["disordered"] == kinds["disordered"]
    assert json.loads(result.stdout)["status"] == dict(status)
    assert status["failed"] == kinds["unknown"]  # an element that the potential does not know
    assert sum(status.values()) == total
    rows = assessment.table.select(["source", "status", "message"]).to_pylist()
    assert len({row["source"] for row in rows}) == total
    assert all(row["message"] for row in rows if row["status"] not in ("judged", "not_converged"))

    metrics = json.loads(result.stdout)["metrics"]
    assert (metrics["read"]["count"], metrics["read"]["total"]) == (total - lost, total)
    different = {i % (total // 2) for i in range(total) if i % 20 and i % 100 != 1}
    assert metrics["uniqueness"]["count"] <= len(different) + len(RARE)  # the others are there twice
