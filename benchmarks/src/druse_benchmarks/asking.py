"""Ask a model for crystals with some properties, relax and judge them, and obtain the properties."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from druse.obtained import PREDICTED, Predict, obtain
from druse_crystal.console import Display
from druse_crystal.files import writable_folder, write_text
from druse_crystal.manifest import Manifest
from druse_energetics.reference import Reference, load_reference
from druse_evaluate.config import EvaluationConfig
from druse_evaluate.judging import check_relaxation
from druse_generate.config import GenerateConfig
from druse_generate.property_request import PropertyRequest, choose_adapters, properties_of
from druse_scores import load_checkpoint

from druse_benchmarks.answers import Answers
from druse_benchmarks.judged_draws import draw_and_judge
from druse_benchmarks.record import machine_load, plain


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How crystals are drawn, judged and measured, whatever is asked of them.

    Attributes:
        generation: how many, from which seed, with which sampler.
        model: checkpoint folder.
        evaluation: reference and relaxation.
        work: a folder for each case that keeps what is finished; the same call continues there.
        display: shows progress.
        adapters: files, besides those that come with the model.
        guidance: see ``PropertyRequest``; None: its default.
        predict: what only a calculation can tell, by property.
    """

    generation: GenerateConfig
    model: Path
    evaluation: EvaluationConfig
    work: Path
    display: Display
    adapters: tuple[Path, ...] = ()
    guidance: float | None = None
    predict: Mapping[str, Predict] = field(default_factory=lambda: PREDICTED)

    @cached_property
    def reference(self) -> Reference:
        """What the crystals are judged against."""
        return load_reference(self.evaluation.reference, potential=self.evaluation.relaxation.potential)

    def request(self, targets: Sequence[str]) -> PropertyRequest:
        """Targets as the generator takes them."""
        if not targets:
            return PropertyRequest()
        asked = PropertyRequest(targets=tuple(targets), adapters=self.adapters)
        return asked if self.guidance is None else replace(asked, guidance=self.guidance)

    def check(self, names: Sequence[str], cases: Mapping[str, Sequence[str]]) -> None:
        """Refuse what cannot be asked, before anything is drawn.

        Args:
            names: of the cases to be asked.
            cases: targets of each that there is.

        Raises:
            ValueError: for a case that does not exist, a broken checkpoint or adapter, a property or value that the
                model has not learnt, or a relaxation that makes no sense.
        """
        for name in names:
            if name not in cases:
                raise ValueError(f"there is no case {name!r}: choose of {', '.join(cases)}")
        check_relaxation(self.evaluation.relaxation)
        network = load_checkpoint(self.model).network
        for name in names:
            request = self.request(cases[name])
            adapters = choose_adapters(self.model, network, request)
            request.read(properties_of(network, list(adapters.values())))

    def __call__(self, name: str, targets: Sequence[str], *, names: Sequence[str]) -> dict[str, Any]:
        """Draw, relax and judge the crystals of one case, and obtain properties of the relaxed ones.

        Args:
            name: of the case.
            targets: all of which each crystal shall meet; none: nothing is asked.
            names: of the properties to obtain, see ``OBTAINABLE``.

        Returns:
            the protocol, with the ``Answers`` under ``crystals``.
        """
        self.display.say(f"{name}: {self.generation.num} crystals")
        manifest, here = Manifest(seed=self.generation.seed), writable_folder(self.work / name)
        config = replace(self.generation, properties=self.request(targets))
        _, assessment = draw_and_judge(
            name,
            config,
            title=" and ".join(targets) or name,
            model=self.model,
            evaluation=self.evaluation,
            reference=self.reference,
            work=here,
            display=self.display,
            manifest=manifest,
        )
        with manifest.stage("properties"):
            obtained = obtain(names, assessment, predict=self.predict, work=here, display=self.display)
        answers = Answers.of(assessment, obtained)
        manifest.settings |= {"case": name, "asked": list(targets), "num": config.num}
        manifest.results |= {"predictor_calls": answers.calls}
        if targets:
            manifest.results |= {
                "hits": {text: answers.share([text]).as_dict() for text in targets},
                "all_hit": answers.share(targets).as_dict(),
                "distinct_hits": answers.distinct(targets),
                "distinct_novel_hits": answers.distinct(targets, flag="novel"),
                "sun_hits": answers.distinct(targets, flag="sun"),
            }
        content = manifest.as_dict()
        content["machine"] |= machine_load()
        return content | {"judge": dict(assessment.metadata), "crystals": answers.as_json()}


def write_case(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write the JSON file of one case."""
    write_text(folder / f"{name}.json", json.dumps(plain(content), indent=1, allow_nan=False) + "\n")
