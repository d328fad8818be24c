"""Settings from YAML: defaults stay within sections, and what is wrong is named."""

import re
from dataclasses import dataclass, field

import pytest
from druse_crystal.settings import override, read_settings, settings_text


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float = 0.0
    high: float = 0.6


@dataclass(frozen=True, kw_only=True)
class Outer:
    seed: int = 0
    sizes: tuple[int, int] | None = None
    inner: Inner = field(default_factory=lambda: Inner(share=0.4))

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, it cannot be negative")


def read(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return read_settings(path, Outer)


def test_what_is_not_mentioned_keeps_its_default(tmp_path):
    assert read(tmp_path, "") == Outer()
    assert read(tmp_path, "inner: {high: 0.7}\nsizes: [2, 4]\n") == Outer(
        sizes=(2, 4), inner=Inner(share=0.4, high=0.7)
    )


def test_settings_survive_a_round_trip(tmp_path):
    settings = Outer(seed=3, sizes=(1, 2), inner=Inner(high=0.9))
    assert read(tmp_path, settings_text(settings)) == settings


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sed: 1", "settings.yaml: sed: no such setting"),
        ("inner: {hi: 1}", "settings.yaml: inner.hi: no such setting"),
        ("seed: much", "settings.yaml: seed: "),
        ("inner: 3", "settings.yaml: inner: "),
        ("seed: -1", "settings.yaml: seed is -1, it cannot be negative"),
        ("- 1", "keys and values"),
        ("a: [", "no valid YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        read(tmp_path, text)
    assert "Value error" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml"):
        read_settings(tmp_path / "none.yaml", Outer)


def test_without_a_file_and_without_options_all_is_default():
    assert read_settings(None, Outer) == Outer()
    assert override(Outer(seed=3), seed=None, sizes=(1, 2)) == Outer(seed=3, sizes=(1, 2))
