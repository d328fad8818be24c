"""Tables of structures with labels."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from druse_energetics.labelled_structures import LabelledStructures

CUBE, NO_CELL = [3.0, 3.0, 3.0, 90.0, 90.0, 90.0], [3.0, 3.0, 3.0, 20.0, 20.0, 160.0]
ROWS = {
    "cell_abc_angles": [CUBE, [4.0, 4.0, 4.0, 90.0, 90.0, 90.0], [0.0] * 6, NO_CELL],
    "frac_coords": [[0.0] * 3, [0.0, 0.0, 0.0, 0.5, 0.5, 0.5], [0.0] * 3, [0.0] * 3],
    "atomic_numbers": [[29], [11, 17], [29], [29]],
    "source": ["a", "b", "a", "c"],
}


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_rows_and_crystals(tmp_path, capsys):
    table = LabelledStructures.read(write(tmp_path / "t.parquet", **ROWS))
    assert len(table) == 4
    assert table.rows("source=a") == [0, 2]
    assert table.rows() == [0, 1, 2, 3]
    crystals = table.crystals([0, 1, 2, 3])
    assert crystals[1].num_atoms == 2
    assert crystals[0].volume == pytest.approx(27.0)
    assert set(crystals) == {0, 1}
    left_out = capsys.readouterr().err
    assert "row 2 is left out" in left_out
    assert "row 3 is left out: no cell has the lengths" in left_out


def test_what_is_no_table_of_structures(tmp_path):
    with pytest.raises(ValueError, match="no column 'label': it has"):
        LabelledStructures.read(write(tmp_path / "t.parquet", **ROWS)).column("label")
    with pytest.raises(ValueError, match="lacks lattice"):
        LabelledStructures.read(
            write(tmp_path / "u.parquet", **{k: v for k, v in ROWS.items() if k != "cell_abc_angles"})
        )
    with pytest.raises(ValueError, match="lacks atomic_numbers"):
        LabelledStructures.read(write(tmp_path / "v.parquet", frac_coords=[[0.0]], lattice=[[1.0]]))
    with pytest.raises(ValueError, match="no readable Parquet"):
        LabelledStructures.read(tmp_path / "missing.parquet")
