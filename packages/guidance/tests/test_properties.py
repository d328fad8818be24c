"""Labels and what is learnt of them."""

import numpy as np
import pytest
from druse_guidance import Property, parse_elements
from druse_guidance.properties import multi_hot, ranges


def test_numbers_are_standardised_and_unknown_ones_stay_unknown():
    gap = Property(name="gap", unit="eV").fitted([1.0, np.nan, 3.0, 5.0])
    assert (gap.num_labels, gap.mean) == (3, 3.0)
    assert gap.levels[0] == 1.0
    assert gap.levels[50] == 3.0
    assert gap.levels[-1] == 5.0
    learnt = gap.learnable([1.0, np.nan, 3.0, 5.0])
    assert np.isnan(learnt[1])
    assert np.allclose(learnt[[0, 2, 3]].mean(), 0)
    assert np.allclose(learnt[[0, 2, 3]].std(), 1)
    assert np.allclose(gap.original(learnt)[[0, 2, 3]], [1, 3, 5])
    assert gap.describe() == "1 to 5 eV, 3 labels"


def test_moduli_are_learnt_as_logarithms():
    modulus = Property(name="K", kind="log_scalar", unit="GPa").fitted([1.0, 10.0, 100.0])
    assert modulus.mean == 1.0
    assert np.allclose(modulus.learnable([10.0]), 0)
    assert np.allclose(modulus.original(modulus.learnable([40.0])), 40)


def test_space_groups_and_chemical_systems():
    group = Property(name="space_group", kind="space_group").fitted([225.0, np.nan, 62.0, 225.0])
    assert group.groups == (62, 225)
    assert np.array_equal(group.original(group.learnable([62.0])), [62])
    assert group.describe() == "2 space groups (62, 225), 3 labels"
    assert multi_hot([parse_elements("O-Li")])[0].nonzero()[0].tolist() == [2, 7]


@pytest.mark.parametrize(
    ("kind", "labels", "words"),
    [
        ("scalar", [1.0, 2.0, np.nan], "has 2 labels, at least 3 are needed"),
        ("scalar", [1.0, 2.0, np.inf], "infinite"),
        ("scalar", [1.0, 1.0, 1.0], "all labels of x are 1"),
        ("scalar", np.full(1000, 0.1), "all labels of x are 0.1"),  # whose std is not zero
        ("scalar", [0.3, 0.1 + 0.2, 0.3], "all labels of x are 0.3"),
        ("log_scalar", np.full(1000, 0.1), "all labels of x are 0.1"),
        ("log_scalar", [1.0, 2.0, 0.0], "no logarithm"),
        ("space_group", [1.0, 2.0, 231.0], "no space groups"),
        ("space_group", [1.0, 2.5, 3.0], "no space groups"),
    ],
)
def test_bad_labels_are_named(kind, labels, words):
    with pytest.raises(ValueError, match=words):
        Property(name="x", kind=kind).fitted(labels)


def test_labels_that_differ_little_are_learnt():
    energies = Property(name="x").fitted([-1000.001, -1000.0, -999.999])
    assert np.allclose(energies.learnable([-1000.001, -1000.0, -999.999]), [-(1.5**0.5), 0, 1.5**0.5], atol=1e-6)


def test_labels_are_checked_without_being_learnt():
    Property(name="x", kind="log_scalar").check([5.0, np.nan])
    Property(name="x").check([0.0, -1.0])
    Property(name="x", kind="space_group").check([])
    with pytest.raises(ValueError, match="x has the label -2, of which there is no logarithm"):
        Property(name="x", kind="log_scalar").check([5.0, -2.0, np.nan])
    with pytest.raises(ValueError, match="no space groups"):
        Property(name="x", kind="space_group").check([999.0])


def test_a_kind_that_does_not_exist():
    with pytest.raises(ValueError, match="of kind 'colour', it must be one of scalar, log_scalar"):
        Property(name="x", kind="colour")


def test_ranges_of_numbers():
    assert ranges([1, 2, 3, 5, 7, 8, 225]) == "1-3, 5, 7-8, 225"
    assert ranges([]) == ""
