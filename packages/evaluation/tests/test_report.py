import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from druse_evaluation.assessment import assess
from druse_evaluation.report import render_report, write_report
from druse_evaluation.table import Assessment
from druse_evaluation.testing import AnsweringRelaxer, relaxed, salt, simple_cubic_salt, small_reference
from druse_evaluation.viewer import scene


@pytest.fixture(scope="module")
def reference():
    return small_reference()


@pytest.fixture(scope="module")
def page_of():
    def render(reference, crystals, **options):
        results = [relaxed(c, -1.95) for c in crystals if c is not None]
        return render_report(assess(crystals, reference=reference, relaxer=AnsweringRelaxer(results)), **options)

    return render


def page_data(page: str) -> dict:
    (data,) = re.findall(r'id="page-data">(.*?)</script>', page, re.S)
    return json.loads(data)


class Loads(HTMLParser):
    """Collects every address that a browser would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag in ("script", "img", "iframe", "link", "source"):
            self.found += [attributes.get(key) for key in ("src", "href") if attributes.get(key)]


def test_the_page_is_self_contained(page_of, reference):
    page = page_of(reference, [simple_cubic_salt(3.4), None, salt(5.5)], title="Three <crystals>")
    loads = Loads()
    loads.feed(page)
    assert loads.found == ["data:,"]
    assert page.count("plotly.js v") == 1
    assert "Three &lt;crystals&gt;" in page
    assert not re.search(r"@import|url\(\s*['\"]?http", page)


def test_the_page_holds_figures_crystals_and_every_row(page_of, reference):
    data = page_data(page_of(reference, [simple_cubic_salt(3.4), None, salt(5.5)]))
    assert set(data["figures"]) == {
        "funnel",
        "hull",
        "cumulative",
        "elements",
        "space_groups",
        "rmsd",
        "sizes",
        "diversity",
    }
    assert [c["name"] for c in data["crystals"]] == ["NaCl-0000", "NaCl-0002"]
    assert "_symmetry_Int_Tables_number   221" in data["crystals"][0]["cif"]
    assert len(data["table"]["rows"]) == 3
    assert data["table"]["rows"][1][data["table"]["columns"].index("status")] == "missing"
    assert data["figures"]["funnel"]["data"][0]["x"][:3] == [3, 2, 2]


def test_sources_cannot_end_the_script(reference):
    from druse_crystal.io import ReadResult

    evil = ReadResult(source="</script><script>alert(1)</script>", crystal=None, error="<b>no</b>")
    page = render_report(assess([evil], reference=reference, relaxations=[None]))
    assert "alert(1)</script>" not in page
    assert page_data(page)["table"]["rows"][0][0] == evil.source


def test_nothing_to_show_is_a_page_too(page_of, reference):
    assert "The best crystals" not in page_of(reference, [])
    assert "no crystal relaxed" in page_of(reference, [None, None])


def test_writing(tmp_path, reference):
    path = tmp_path / "deep" / "report.html"
    found = assess([salt(5.5)], reference=reference, relaxer=AnsweringRelaxer([relaxed(salt(5.6), -1.9)]))
    write_report(path, found, manifest={"seed": 7})
    assert "&#34;seed&#34;: 7" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_scene_of_rock_salt():
    drawn = scene(salt(5.64))
    assert len(drawn["elements"]["Na"]["atoms"]) == 14  # corners and faces of the conventional cell, or the other way
    assert len(drawn["elements"]["Cl"]["atoms"]) == 13
    assert len(drawn["edges"]) == 12
    edges = np.linalg.norm(np.diff(np.array(drawn["edges"]), axis=1)[:, 0], axis=-1)
    assert edges == pytest.approx(np.full(12, 5.64), abs=2e-3)
    bonds = [np.linalg.norm(np.subtract(*half)) for halves in drawn["bonds"].values() for half in halves]
    assert len(bonds) == 2 * 54  # 3 x 3 x 2 along each of three axes, two halves each
    assert sum(bonds) == pytest.approx(54 * 2.82, rel=1e-3)


def test_scene_of_metals_and_of_lone_atoms():
    iron = salt(4.2, anion=26, cation=28)
    assert scene(iron)["bonds"]
    lone = salt(14.0)
    assert scene(lone)["bonds"] == {}


def test_read_assessments_render_the_same(tmp_path, reference):
    found = assess([salt(5.5)], reference=reference, relaxer=AnsweringRelaxer([relaxed(salt(5.6), -1.9)]))
    found.write(tmp_path / "a.parquet")
    assert page_data(render_report(Assessment.read(tmp_path / "a.parquet"))) == page_data(render_report(found))
