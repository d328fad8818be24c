"""Does an adapter do what it is told? Crystals asked for the labels of held-out ones, and what they turn out to be."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from druse_crystal import Crystal, CrystalBatch
from druse_crystal.derived import DERIVED, derived_labels
from druse_diffusion import Conditions, CrystalProcess, RandomStreams, ScoreModel, fast_times, sample
from druse_guidance import ClassifierFreeGuidance, Property
from druse_guidance.units import other_unit
from scipy.stats import spearmanr

from druse_train.config import SYSTEM, CalibrationConfig, PropertyConfig
from druse_train.property_labels import PropertyLabels, systems_of, unit_of

Obtain = Callable[[Sequence[Crystal]], np.ndarray]


def obtainers(configs: Sequence[PropertyConfig]) -> dict[str, Obtain]:
    """What tells a property of a drawn crystal, by the name of the property; those that nothing tells are left out.

    Raises:
        ValueError: for a predictor that does not exist, whose package is not installed, or that tells another unit.
    """
    found: dict[str, Obtain] = {}
    for config in configs:
        name = config.derived
        if config.predictor is not None:
            found[config.name] = _predictor(config.predictor, of=config)
        elif config.resolved_kind == SYSTEM:
            found[config.name] = systems_of
        elif name is not None and not other_unit(unit_of(config), DERIVED[name][0]):
            found[config.name] = partial(derived_labels, name)
    return found


def calibrate(
    model: ScoreModel,
    properties: Mapping[str, Property],
    crystals: CrystalBatch,
    labels: PropertyLabels,
    *,
    config: CalibrationConfig,
    obtain: Mapping[str, Obtain],
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """Draw crystals asked for held-out labels, one property at a time, and compare.

    The same crystals, targets and noise in every call, so that only the model makes a difference.

    Args:
        model: a network with adapters.
        properties: that it knows, by name.
        crystals: held out; they give targets and numbers of atoms.
        labels: of these crystals.
        config: how many, and how to draw.
        obtain: tells the property of a drawn crystal, by name; NaN where it cannot.
        seed: of targets and noise.
        device: of the model.

    Returns:
        for each property ``follows_<name>``: of a number Spearman's correlation of asked for and obtained, of a space
        group or a chemical system the share of crystals that have it; of a number also ``off_<name>``, the median of
        the absolute difference. NaN where fewer than three crystals tell, or no label is known; what is no crystal does
        not count.
    """
    results = {}
    for name, tell in obtain.items():
        known = np.flatnonzero(labels.known[name].numpy())
        if not len(known):
            results |= _compare(properties[name], np.empty(0), np.empty(0))
            continue
        rows = np.random.default_rng(seed).choice(known, min(config.num, len(known)), replace=False)
        index = torch.tensor(rows)
        values = labels.values[name][index]
        drawn = _draw(model, crystals.select(index), name, values, config=config, seed=seed, device=device)
        there = [i for i, crystal in enumerate(drawn) if crystal is not None]
        with torch.inference_mode(False), torch.enable_grad():  # validations run without; a potential needs gradients
            obtained = tell([crystal for crystal in drawn if crystal is not None])
        results |= _compare(properties[name], values.numpy()[there].astype(np.float64), obtained)
    return results


def _draw(
    model: ScoreModel,
    held_out: CrystalBatch,
    name: str,
    values: torch.Tensor,
    *,
    config: CalibrationConfig,
    seed: int,
    device: torch.device,
) -> list[Crystal | None]:
    """Crystals of the sizes of the held-out ones, asked for their labels."""
    given = torch.ones(len(values), dtype=torch.bool)
    return sample(
        CrystalProcess(),
        ClassifierFreeGuidance(model=model, scale=config.guidance),
        held_out.to(device=device),
        times=fast_times(config.steps),
        n_corrector_steps=config.corrector_steps,
        conditions=Conditions(values={name: values}, given={name: given}).to(device),
        generator=RandomStreams(seed, torch.arange(len(values)), device=device),
    ).crystals_or_none()


def _compare(property_: Property, asked: np.ndarray, obtained: np.ndarray) -> dict[str, float]:
    name, nothing = property_.name, float("nan")
    if not property_.is_number:
        same = asked == obtained if asked.ndim == 1 else (asked == obtained).all(-1)
        return {f"follows_{name}": float(same.mean()) if len(same) else nothing}
    told = np.isfinite(obtained)
    asked, obtained = property_.original(asked[told]), obtained[told]
    enough = len(asked) >= 3 and np.ptp(asked) > 0 and np.ptp(obtained) > 0
    return {
        f"follows_{name}": float(spearmanr(asked, obtained).statistic) if enough else nothing,
        f"off_{name}": float(np.median(np.abs(asked - obtained))) if len(asked) else nothing,
    }


def _predictor(name: str, *, of: PropertyConfig) -> Obtain:
    try:
        from druse_energetics.predictors import load_predictor
    except ModuleNotFoundError as error:
        raise ValueError(
            f"predictor: {name} needs the package druse-energetics: pip install 'druse-train[predictors]', or leave "
            "the predictor out"
        ) from error
    predictor, unit = load_predictor(name), unit_of(of)
    if other_unit(unit, predictor.unit):
        raise ValueError(
            f"the labels of {of.name} are in {unit}, and its predictor {name} tells {predictor.unit}: convert the "
            "labels, correct the unit, or choose another predictor"
        )
    return predictor
