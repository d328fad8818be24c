"""The whole chain with a real potential and the embedded reference."""

import numpy as np
import pytest
from druse_crystal.crystal import Crystal
from druse_evaluation.assessment import assess
from druse_evaluation.metrics import measure, sun_rate
from druse_evaluation.summary import judge_sentence
from druse_evaluation.testing import salt


def test_rock_salt_is_known_and_stable_and_a_strange_mixture_is_not():
    from druse_energetics.reference import load_reference
    from druse_energetics.relaxation import make_relaxer

    strange = Crystal(
        lattice=3.4 * np.eye(3), frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), atomic_numbers=np.array([11, 39])
    )
    found = assess(
        [salt(5.9), strange, None], reference=load_reference(potential="sevennet-0"), relaxer=make_relaxer("sevennet-0")
    )
    assert found.strings("status") == ["judged", "judged", "missing"]
    assert found.strings("space_group_symbol")[0] == "Fm-3m"
    relaxed = found.relaxed(0)
    assert relaxed is not None
    assert (4 * relaxed.volume) ** (1 / 3) == pytest.approx(5.69, abs=0.06)  # PBE lattice constant of rock salt in Å
    above = found.values("energy_above_hull")
    assert abs(above[0]) < 0.03
    assert above[1] > 0.1
    assert found.flags("known_formula").tolist() == [True, False, False]
    assert found.flags("novel").tolist() == [False, True, False]
    assert sun_rate(found).count == 0
    cautious, hopeful = (found.values(f"probability_metastable_{name}") for name in ("generated", "wbm"))
    assert cautious[0] > cautious[1]
    assert hopeful[0] > cautious[0]
    assert "sevennet-0 against the hull embedded" in judge_sentence(found.metadata)
    assert {"sun_calibrated_generated", "sun_calibrated_wbm", "metastable_calibrated_wbm"} <= {
        m.metric.name for m in measure(found)
    }
