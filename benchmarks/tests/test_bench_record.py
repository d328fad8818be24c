import json
import math

import numpy as np
import pytest
from druse_benchmarks.drawing import canvas
from druse_benchmarks.record import (
    JUDGED_BY,
    judged_and_expected,
    made_alike,
    markdown_table,
    plain,
    write_record,
    write_section,
)


def test_json_holds_no_nan_and_no_folders():
    content = {
        "nan": math.nan,
        "infinite": [1.0, math.inf],
        "numpy": np.float64(0.5),
        "array": np.arange(3),
        "command": ["druse-bench", "--out=/a/b/results", "files:/c/d.zip", "/e/f,/g/h", "runs/base", "eV/atom"],
        "/data/train.parquet": "hash",
    }
    assert json.loads(json.dumps(plain(content), allow_nan=False)) == {
        "nan": None,
        "infinite": [1.0, None],
        "numpy": 0.5,
        "array": [0, 1, 2],
        "command": ["druse-bench", "--out=results", "files:d.zip", "f,h", "runs/base", "eV/atom"],
        "train.parquet": "hash",
    }


def test_record_and_its_section(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Top\n<!-- a:begin -->\nold\n<!-- a:end -->\nmiddle\n<!-- b:begin -->\nkept\n<!-- b:end -->\n")
    for table in ("first\n", "second\n"):
        figure, _ = canvas()
        folder = write_record(
            tmp_path / "results", "a", documents={"a": {"x": 1}}, table=table, picture=figure, caption="A picture"
        )
    assert sorted(p.name for p in folder.iterdir()) == ["a.json", "picture.png", "table.md"]
    assert json.loads((folder / "a.json").read_text()) == {"x": 1}
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    text = readme.read_text()
    assert text.startswith("# Top\n<!-- a:begin -->\n\nsecond\n")
    assert "![A picture](results/a/picture.png)" in text
    assert "old" not in text
    assert "first" not in text
    assert text.endswith("<!-- a:end -->\nmiddle\n<!-- b:begin -->\nkept\n<!-- b:end -->\n")


@pytest.mark.parametrize("text", ["", "<!-- a:begin -->\nno end\n", "<!-- a:end -->\n<!-- a:begin -->\n"])
def test_a_readme_without_the_section_stays_as_it_is(tmp_path, text):
    readme = tmp_path / "README.md"
    assert not write_section(readme, "a", "new")
    readme.write_text(text)
    assert not write_section(readme, "a", "new")
    assert readme.read_text() == text


def test_markdown_table():
    assert markdown_table(["", "n"], [["x", "1"]]) == "|  | n |\n| --- | ---: |\n| x | 1 |\n"


def test_files_of_other_hashes_do_not_stand_side_by_side():
    relaxation = {"potential": "sevennet-0", "fmax": 0.05, "max_steps": 500}

    def content(name="mine", **judge):
        same = dict.fromkeys(JUDGED_BY) | {"judge": "sevennet-0", "reference": name}
        return {"judge": same | judge, "settings": {"relaxation": relaxation}}

    files = {"mine.parquet": "a1", "corrections-sevennet-0.json": "c3"}
    weights = {"sevennet-0": "w"}
    new = content(reference_files=files, weights=weights, judges=[])
    alike = [
        content(),  # from before there were hashes
        content(reference_files={}, weights={}),
        content(reference_files=files, weights=weights),
        content(
            reference_files=files | {"energies-chgnet.parquet": "e5"},
            weights=weights | {"chgnet": "v"},
            judges=["chgnet"],
        ),
    ]
    different = [
        content(name="other"),
        content(reference_files=files | {"mine.parquet": "b2"}, weights=weights),
        content(reference_files={"yours.parquet": "a1", "corrections-sevennet-0.json": "c3"}),
        content(reference_files=files | {"hull.parquet": "h"}),
        content(reference_files=files, weights={"sevennet-0": "x"}),
    ]
    for other in alike:
        assert made_alike(new, other)
        assert made_alike(other, new)
    for other in different:
        assert not made_alike(new, other)
        assert not made_alike(other, new)


def test_a_rate_about_the_hull_as_judged_and_expected():
    results: dict[str, dict[str, float]] = {"sun": {"count": 30, "total": 100}}
    assert judged_and_expected(results, "sun") == "30.0 % [21.9, 39.6]"
    results |= {"sun_calibrated_generated": {"value": 0.1}, "sun_calibrated_wbm": {"value": 0.254}}
    assert judged_and_expected(results, "sun") == "30.0 % [21.9, 39.6]; 10.0 to 25.4 %"
