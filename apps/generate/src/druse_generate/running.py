"""One run of the generator in a folder: draw what is missing, keep it at once, write the files."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from druse_crystal.composition import chemical_system
from druse_crystal.console import Display
from druse_crystal.files import writable_folder
from druse_crystal.io import write_cif_zip, write_extxyz
from druse_crystal.journal import Journal, crystal_as_json, crystal_from_json
from druse_crystal.manifest import Manifest, file_hash
from druse_guidance import Reward
from druse_scores import load_checkpoint

from druse_generate.checking import check
from druse_generate.config import GenerateConfig
from druse_generate.generating import Draw, generate
from druse_generate.property_request import choose_adapters
from druse_generate.steering_report import missing_rewards, steering_report
from druse_generate.target_report import targets_met

REQUESTS = ("composition", "symmetry", "seed_structure", "properties", "steering")
"""Sections that decide a run only if something was asked for, so that they do not end runs begun without them."""


def draw_into(
    folder: Path,
    *,
    model: Path,
    config: GenerateConfig,
    display: Display,
    manifest: Manifest,
    device: str = "cpu",
    rewards: Mapping[str, Reward] = MappingProxyType({}),
    rewards_depend_on: str = "",
) -> list[Draw]:
    """Draw crystals, keeping each batch in ``generated.jsonl``; an interrupted call, made again, continues.

    Args:
        folder: of the run.
        model: checkpoint folder.
        config: what to draw.
        display: shows progress.
        manifest: takes settings, hashes and times.
        device: torch device.
        rewards: that steering can be asked to go by, by name.
        rewards_depend_on: in words; a run goes on only with the same.

    Returns:
        one draw for each crystal asked for, by index.

    Raises:
        ValueError: if the checkpoint is broken, the request impossible, the folder holds another run, or no crystal has
            a reward to be steered by.
    """
    checkpoint = load_checkpoint(model, device=device)
    adapters = choose_adapters(model, checkpoint.network, config.properties)
    wishes = check(checkpoint, config, list(adapters.values()))
    reward = config.steering.read(rewards)
    for warning in wishes.warnings:
        display.warn(warning)
    model_hash = file_hash(model / "weights.safetensors")
    settings: dict[str, Any] = asdict(config) | {"model": model_hash}
    if (structure := config.seed_structure.structure) is not None:
        settings["seed_structure"] |= {"structure": str(structure), "hash": file_hash(structure)}
    if config.properties.restricts:
        names = [str(path) for path in config.properties.adapters]
        settings["properties"] |= {"adapters": names, "hashes": [file_hash(path) for path in adapters]}
    if reward is not None and config.steering.reward in rewards:
        settings["steering"] |= {"of": rewards_depend_on}
    elif reward is not None:
        settings["steering"] |= {"hash": file_hash(Path(str(config.steering.reward).rpartition(":")[0]))}
    left_out = {name for name in REQUESTS if not getattr(config, name).restricts}
    if not config.sampler.by_batch:  # more crystals of the same run, or another batch size, give the same crystals
        left_out |= {"num", "batch_pairs"}
    left_out |= set() if config.mixed_precision else {"mixed_precision"}
    decisive = {name: value for name, value in settings.items() if name not in left_out}
    folder = writable_folder(folder)
    journal = Journal(folder / "generated.jsonl", "generated crystals", decisive)
    draws = {
        line["index"]: Draw(
            index=line["index"],
            crystal=crystal_from_json(line["crystal"]),
            message=line["message"],
            reward=line.get("reward"),
            rewards=line.get("rewards", 0),
            gradients=line.get("gradients", 0),
        )
        for line in journal.lines
        if line["index"] < config.num
    }
    manifest.seed = config.seed
    manifest.settings["generate"] = settings
    manifest.inputs["model"] = model_hash
    if wishes.warnings:
        manifest.results["warnings"] = list(wishes.warnings)
    there = len(draws)
    if there:
        display.say(f"{there} of {config.num} crystals are there already")

    def tell(done: float) -> None:
        display.update("generation", min(there + done, config.num), config.num)

    tell(0)
    with manifest.stage("generation"):
        there_before = frozenset(draws)
        indices = [i for i in range(config.num) if config.sampler.by_batch or i not in there_before]
        for batch in generate(wishes, indices, finished=there_before, reward=reward, on_progress=tell):
            for draw in (draw for draw in batch if draw.index not in there_before):
                line = {"index": draw.index, "crystal": crystal_as_json(draw.crystal), "message": draw.message}
                steered = {"reward": draw.reward, "rewards": draw.rewards, "gradients": draw.gradients}
                journal.keep(line if reward is None else line | steered)
                draws[draw.index] = draw
    if reward is not None:
        manifest.results["steering"] = steering_report(list(draws.values()))
        if warning := missing_rewards(list(draws.values()), str(config.steering.reward)):
            display.warn(warning)
            manifest.results["warnings"] = [*wishes.warnings, warning]
    if wishes.targets:
        manifest.results["targets"] = targets_met(wishes, list(draws.values()))
    return [draws[i] for i in range(config.num)]


def write_draws(folder: Path, draws: list[Draw], *, display: Display, manifest: Manifest) -> None:
    """Write ``crystals.extxyz``, ``cifs.zip`` and ``manifest.json``."""
    good = [(draw.index, draw.crystal) for draw in draws if draw.crystal is not None]
    for draw in draws:
        if draw.crystal is None:
            display.say(f"crystal {draw.index}: {draw.message}")
    crystals = [crystal for _, crystal in good]
    names = [f"druse-{index:05d}" for index, _ in good]
    if not crystals:
        raise ValueError(
            f"none of the {len(draws)} crystals asked for was found ({draws[0].message}): ask for other elements or "
            "more atoms, or use a model that is trained better"
        )
    with manifest.stage("writing"):
        write_extxyz(folder / "crystals.extxyz", crystals, info=[{"id": name} for name in names])
        write_cif_zip(folder / "cifs.zip", crystals, names=names)
    manifest.results |= {
        "requested": len(draws),
        "crystals": len(good),
        "chemical_systems": dict(Counter(chemical_system(crystal) for crystal in crystals).most_common()),
    }
    manifest.write(folder / "manifest.json")
