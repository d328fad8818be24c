import numpy as np
import pytest
from druse_energetics.calibration import Calibration, fit_calibration, judge_error, load_calibration
from scipy.stats import norm

BIAS, SPREAD = 0.08, 0.05


@pytest.fixture(scope="module")
def made_up():
    rng = np.random.default_rng(0)
    judged = rng.uniform(-0.1, 0.6, 4000)
    dft = BIAS + judged + SPREAD * rng.normal(size=4000)
    groups = rng.choice(["a", "b", "c", "d"], 4000)
    return judged, dft, groups, fit_calibration(judged, dft, groups, potential="x", against="made up")


def test_recovers_line_and_distribution(made_up):
    calibration = made_up[3]
    assert calibration.slope == pytest.approx(1.0, abs=0.02)
    for judged in (0.0, 0.1, 0.3):
        assert calibration.predicted_dft(judged) == pytest.approx(judged + BIAS, abs=0.01)
        for threshold in (0.05, 0.1, 0.2):
            expected = norm.cdf((threshold - judged - BIAS) / SPREAD)
            assert calibration.probability(judged, threshold) == pytest.approx(expected, abs=0.03)


def test_rates_come_out_right(made_up):
    judged, dft, _, calibration = made_up
    for threshold in (0.0, 0.05, 0.1):
        assert calibration.rates[f"{threshold:g}"] == pytest.approx((dft <= threshold).mean(), abs=0.01)
        assert calibration.probability(judged, threshold).mean() == pytest.approx((dft <= threshold).mean(), abs=0.01)


def test_measured_errors(made_up):
    _, _, _, calibration = made_up
    assert calibration.raw.bias == pytest.approx(BIAS, abs=0.005)
    assert calibration.raw.spread == pytest.approx(SPREAD, rel=0.1)
    assert calibration.calibrated.bias == pytest.approx(0, abs=0.005)
    assert calibration.calibrated.mae == pytest.approx(SPREAD * np.sqrt(2 / np.pi), rel=0.1)
    assert set(calibration.groups) == {"a", "b", "c", "d"}
    assert sum(error.n for error in calibration.groups.values()) == 4000


def test_probability_is_monotone(made_up):
    calibration = made_up[3]
    distances = np.linspace(-0.3, 1.0, 200)
    assert (np.diff(calibration.probability(distances, 0.1)) <= 1e-12).all()
    thresholds = [calibration.probability(0.1, t) for t in np.linspace(-0.5, 1.0, 50)]
    assert (np.diff(thresholds) >= 0).all()
    assert np.isnan(calibration.probability(float("nan"), 0.1))


def test_judge_error_by_hand():
    error = judge_error(np.array([-0.1, 0.05, 0.08, 0.3]), np.array([0.02, 0.15, 0.09, 0.05]))
    assert error.precision["0.1"] == pytest.approx(2 / 3, abs=1e-4)
    assert error.recall["0.1"] == pytest.approx(2 / 3, abs=1e-4)
    assert error.precision["0"] == 0.0
    assert error.recall["0"] is None
    assert error.bias == pytest.approx((0.01 + 0.1) / 2)


def test_too_little_to_calibrate_on():
    with pytest.raises(ValueError, match="at least two"):
        fit_calibration(np.zeros(100), np.zeros(100), ["a"] * 100, potential="x", against="y")
    with pytest.raises(ValueError, match="as many"):
        fit_calibration(np.zeros(100), np.zeros(99), ["a"] * 100, potential="x", against="y")


def test_round_trip(made_up, tmp_path):
    made_up[3].write(tmp_path / "calibration.json")
    assert Calibration.read(tmp_path / "calibration.json") == made_up[3]


def test_shipped_calibrations():
    against_generated, against_wbm = load_calibration("sevennet-0"), load_calibration("sevennet-0", "wbm")
    assert against_generated is not None
    assert against_wbm is not None
    assert against_generated.raw.n >= 400
    assert set(against_generated.groups) == {"CDVAE", "CrystaLLM", "FTCP", "Random"}
    assert against_generated.raw.bias > 0  # the judge is too kind
    assert abs(against_generated.calibrated.bias) < 0.01
    assert against_generated.calibrated.mae < against_generated.raw.mae
    assert against_generated.probability(0.0, 0.1) > against_generated.probability(0.1, 0.1)
    assert against_wbm.raw.mae < against_generated.raw.mae
    assert load_calibration("chgnet") is None
