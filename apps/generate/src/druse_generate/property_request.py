"""Which properties a crystal shall have, and the adapters that know them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from druse_guidance import Adapter, Property, Target, load_adapter, own_properties, parse_target
from druse_guidance.classifier_free import check_guidance
from druse_scores import Network, load_checkpoint

ADAPTERS = "adapters"
"""Folder inside of a checkpoint's, with adapters that belong to it."""

_HARD = 10.0  # the paper goes up to this scale


@dataclass(frozen=True, kw_only=True)
class PropertyRequest:
    """What was asked of properties, and how hard to pull.

    Attributes:
        targets: such as ``dft_band_gap=1..2`` or ``space_group=225``; see ``druse_guidance.parse_target``.
        adapters: files of adapters, besides those that come with the model.
        guidance: scale of classifier-free guidance; 1 is the conditional model, more pulls harder and pays with
            diversity.
        interval: times between which guidance acts.

    Raises:
        ValueError: for a guidance that makes no sense, or that would leave the targets out of account.
    """

    targets: tuple[str, ...] = ()
    adapters: tuple[Path, ...] = ()
    guidance: float = 2.0
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        check_guidance(self.guidance, self.interval)
        if self.targets and self.guidance == 0:
            raise ValueError(
                f"{' and '.join(self.targets)} cannot be met with a guidance of 0, which leaves properties out of "
                "account: leave the guidance out, or give 1 or more"
            )
        if self.guidance == 1 and self.interval != PropertyRequest.interval:
            raise ValueError(
                "an interval of guidance was given with a guidance of 1, which is the conditional model at all times: "
                "leave the interval out, or give more guidance"
            )
        if self.adapters and not self.targets:
            raise ValueError(
                f"the adapter {self.adapters[0]} was given and nothing asked of it: name a property, such as "
                "space_group=225, or leave the adapter out"
            )
        unused = [name for name in ("guidance", "interval") if getattr(self, name) != getattr(PropertyRequest, name)]
        if unused and not self.targets:
            raise ValueError(
                f"{unused[0]} of properties was given and no property: name one, such as space_group=225, or leave it "
                "out"
            )

    @property
    def restricts(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.targets)

    @property
    def warning(self) -> str:
        """A sentence if guidance pulls so hard that crystals fall apart; else empty."""
        if self.guidance <= _HARD:
            return ""
        return f"a guidance of {self.guidance:g} leaves few crystals whole: up to {_HARD:g} is usual, the default is 2"

    def read(self, properties: dict[str, Property]) -> tuple[Target, ...]:
        """The targets, checked against what the model knows.

        Raises:
            ValueError: for a target that makes no sense to the model, or two of one property.
        """
        found = tuple(parse_target(text, properties) for text in self.targets)
        for target in found:
            target.draw(0.5)  # refuses what cannot be drawn from
        names = [target.property.name for target in found]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} was asked for more than once: write one target, such as a range")
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the properties that were asked for, as far as the targets can be read."""
        return tuple(text.split("=")[0].rstrip("<> ").strip() for text in self.targets)


def adapter_files(model: Path) -> list[Path]:
    """The adapters that come with a checkpoint."""
    return sorted((model / ADAPTERS).glob("*.safetensors"))


def choose_adapters(model: Path, base: Network, request: PropertyRequest) -> dict[Path, Adapter]:
    """Read the adapters of a request: the files given, and of those that come with the model as few as are needed.

    Each is left with what was asked for and is not known before it, since what is not asked for has no say: files that
    were given come before the base, and this before what comes with it.

    Args:
        model: checkpoint folder.
        base: its network.
        request: what was asked for.

    Returns:
        adapters by file; where something is asked for that nobody knows, all there are, so that a message can name what
        they know.

    Raises:
        AdapterError: for a file that is broken or belongs to another base.
        ValueError: for a file of which nothing is asked, or two of which the same is.
    """
    if not request.restricts:
        return {}
    given = {path: load_adapter(path, base=base).adapter for path in request.adapters}
    missing = set(request.names)
    chosen: dict[Path, Adapter] = {}
    for path, adapter in given.items():
        asked = adapter.properties.keys() & set(request.names)
        if not asked:
            raise ValueError(
                f"nothing was asked of the adapter {path}, which knows {', '.join(adapter.properties)}: ask for one of "
                "these, or leave the adapter out"
            )
        if twice := asked - missing:
            raise ValueError(f"{min(twice)} comes with two adapters that were given: leave one of them out")
        chosen[path] = adapter.only(asked)
        missing -= asked
    missing -= own_properties(base).keys()
    shipped = {path: load_adapter(path, base=base).adapter for path in adapter_files(model)} if missing else {}
    while missing and shipped:  # one that brings most comes first
        path = max(shipped, key=lambda path: len(missing & shipped[path].properties.keys()))
        if not (brings := missing & shipped[path].properties.keys()):
            return given | shipped | chosen
        chosen[path] = shipped.pop(path).only(brings)
        missing -= brings
    return chosen


def properties_of(network: Network, adapters: Sequence[Adapter]) -> dict[str, Property]:
    """All properties that a network and some adapters know, by name."""
    return own_properties(network) | {name: p for adapter in adapters for name, p in adapter.properties.items()}


def read_targets(model: Path, request: PropertyRequest) -> tuple[Target, ...]:
    """The targets of a request, of properties as the model and its adapters have learnt them.

    Args:
        model: checkpoint folder.
        request: what was asked for.

    Raises:
        ValueError: for a broken checkpoint, or as ``choose_adapters`` and ``PropertyRequest.read``.
    """
    if not request.restricts:
        return ()
    network = load_checkpoint(model).network
    adapters = choose_adapters(model, network, request)
    return request.read(properties_of(network, list(adapters.values())))
