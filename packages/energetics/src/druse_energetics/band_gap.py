"""Band gaps from what SevenNet-0 knows of the atoms: a small network reads its features, which stay as they are.

The features are the scalar channels of every atom after each interaction layer, and the lengths of the vectors and
tensors beside them (``SevenNetPotential.invariants``). Each atom passes one layer, the mean and the maximum over the
atoms of a crystal two more (deep sets: Zaheer et al., arXiv:1703.06114). Two numbers come out: whether there is a gap,
and how large it is if there is one, since under PBE two crystals in five are metals with a gap of exactly zero.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from druse_crystal.crystal import Crystal
from druse_crystal.files import replacing
from jaxtyping import Float, Float32, Float64, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from druse_energetics.potential import Potential, unknown_elements

WEIGHTS = Path(__file__).parent / "data" / "band-gap-sevennet-0.safetensors"
FARTHEST = 8.0
"""In standard deviations of the training atoms: what lies farther out, as in crystals that are none, is moved here."""
_HEADER = "druse_band_gap"
_FORMAT = 1
_REBUILD = "rebuild it with `python -m druse_energetics.derivation band-gap sevennet-0`"


class BandGapReadout(nn.Module):
    """Features of atoms to the gaps of crystals.

    Args:
        channels: features of an atom.
        width: of the hidden layers.
        dropout: share of features and hidden units left out in training.
    """

    def __init__(self, channels: int, *, width: int = 96, dropout: float = 0.1):
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.of_atoms = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, width), nn.SiLU())
        self.of_crystals = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(
        self, features: Float[Tensor, "n c"], num_atoms: Int64[Tensor, " b"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """The logit of the probability that there is a gap, and the gap in eV if so.

        Args:
            features: of all atoms, crystal after crystal.
            num_atoms: of each crystal.
        """
        x = self.of_atoms(((features - self.mean) / self.scale).clamp(-FARTHEST, FARTHEST))
        crystal = torch.repeat_interleave(torch.arange(len(num_atoms), device=x.device), num_atoms)
        mean = x.new_zeros(len(num_atoms), x.shape[1]).index_add_(0, crystal, x) / num_atoms[:, None]
        greatest = torch.full_like(mean, -torch.inf).scatter_reduce(0, crystal[:, None].expand_as(x), x, "amax")
        logit, size = self.of_crystals(torch.cat([mean, greatest], dim=1)).unbind(1)
        return logit, nn.functional.softplus(size)

    @torch.no_grad()
    def gaps(self, features: Sequence[Float32[np.ndarray, "_ c"]]) -> Float64[np.ndarray, " b"]:
        """Gaps in eV of crystals from the features of their atoms; 0 where a metal is more likely than a gap."""
        if not features:
            return np.empty(0)
        num_atoms = torch.tensor([len(x) for x in features])
        logit, size = self(torch.from_numpy(np.concatenate(features)), num_atoms)
        return torch.where(logit > 0, size, torch.where(logit.isnan(), torch.nan, 0.0)).cpu().double().numpy()


@dataclass(frozen=True, kw_only=True)
class StoredReadout:
    """A readout as it was saved.

    Attributes:
        readout: in evaluation mode.
        potential: SHA-256 of the weights whose features it was trained on.
        provenance: data, numbers of labels, errors, versions; free form.
    """

    readout: BandGapReadout
    potential: str
    provenance: Mapping[str, Any] = field(default_factory=dict)


def band_gaps(
    potential: Potential, crystals: Sequence[Crystal], *, readout: BandGapReadout | None = None
) -> Float64[np.ndarray, " b"]:
    """PBE band gaps in eV of crystals near their minimum; 0 for a metal.

    The two mirror images of a chiral crystal may differ a little, as their energies do, for SevenNet-0 knows no parity:
    by 10 meV at most among 300 known crystals.

    Args:
        potential: SevenNet-0, whose features are read.
        crystals: relaxed, or as DFT relaxed them.
        readout: of this potential; None: the shipped one.

    Returns:
        (b,) NaN where the potential does not know an element, or fails on the crystal.

    Raises:
        ValueError: if the shipped readout was trained on another potential, or its file is damaged.
    """
    if readout is None:
        readout = load_readout(potential).readout
    gaps = np.full(len(crystals), np.nan)
    usable = [i for i, crystal in enumerate(crystals) if not unknown_elements(potential, crystal)]
    of_atoms = atom_features(potential, [crystals[i] for i in usable])
    there = [k for k, x in enumerate(of_atoms) if x is not None]
    gaps[[usable[k] for k in there]] = readout.gaps([x for x in of_atoms if x is not None])
    return gaps


def atom_features(potential: Potential, crystals: Sequence[Crystal]) -> list[Float32[np.ndarray, "_ c"] | None]:
    """Features of the atoms of crystals whose elements the potential knows; None where it fails.

    Raises:
        ValueError: for a potential without such features.
    """
    from druse_energetics.sevennet import SevenNetPotential

    if not isinstance(potential, SevenNetPotential):
        raise ValueError(f'{potential.name} has no features to read: load "sevennet-0"')
    try:
        return list(potential.invariants(crystals))
    except Exception:  # one crystal on which the network fails, such as an isolated atom: find it
        if len(crystals) == 1:
            return [None]
    return [atom_features(potential, [crystal])[0] for crystal in crystals]


def fit_readout(
    features: Sequence[Float32[np.ndarray, "_ c"]],
    gaps: Float64[np.ndarray, " b"],
    *,
    epochs: int = 30,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> BandGapReadout:
    """Train a readout: cross-entropy of whether there is a gap, and the absolute error of its size where there is one.

    AdamW, the learning rate rises over the first tenth of the steps and falls to zero after. The same seed on one
    thread gives the same weights.

    Args:
        features: of the atoms of each crystal.
        gaps: in eV.
        epochs: passes over the crystals.
        batch_size: crystals a step.
        learning_rate: at its highest.
        weight_decay: of AdamW.
        seed: of weights, dropout and order; the global random state is left as it was.

    Raises:
        ValueError: if there are fewer crystals than in one batch, or a gap is negative or not finite.
    """
    if len(features) < batch_size:
        raise ValueError(
            f"{len(features)} crystals are less than one batch of {batch_size}: give more, or a smaller one"
        )
    if not (np.isfinite(gaps).all() and (gaps >= 0).all()):
        raise ValueError("every gap must be a number of eV that is not negative: leave crystals without a label out")
    of_atoms = np.concatenate(features)
    num_atoms = torch.tensor([len(x) for x in features])
    ends = np.cumsum(num_atoms.numpy())
    target = torch.tensor(gaps, dtype=torch.float32)
    order = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        readout = BandGapReadout(of_atoms.shape[1])
        readout.mean.copy_(torch.from_numpy(of_atoms.mean(0)))
        readout.scale.copy_(torch.from_numpy(of_atoms.std(0) + 1e-3))
        optimizer = torch.optim.AdamW(readout.parameters(), lr=learning_rate, weight_decay=weight_decay)
        steps = len(features) // batch_size
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, learning_rate, total_steps=epochs * steps, pct_start=0.1
        )
        for _ in range(epochs):
            shuffled = order.permutation(len(features))[: steps * batch_size]
            for rows in shuffled.reshape(steps, batch_size):
                atoms = np.concatenate([np.arange(ends[i] - num_atoms[i].item(), ends[i]) for i in rows])
                logit, size = readout(torch.from_numpy(of_atoms[atoms]), num_atoms[rows])
                there = (target[rows] > 0).float()
                loss = nn.functional.binary_cross_entropy_with_logits(logit, there)
                loss = loss + ((size - target[rows]).abs() * there).mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(readout.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    return readout.eval()


def save_readout(path: str | os.PathLike, stored: StoredReadout) -> None:
    """Write as safetensors, weights in half precision, with the provenance in the header.

    Raises:
        ValueError: if the file cannot be written.
    """
    header = {"format": _FORMAT, "potential": stored.potential, "provenance": dict(stored.provenance)}
    tensors = {
        name: (value if name in ("mean", "scale") else value.half()).detach().contiguous()
        for name, value in stored.readout.state_dict().items()
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_HEADER: json.dumps(header, sort_keys=True)})


def load_readout(potential: Potential, path: str | os.PathLike = WEIGHTS) -> StoredReadout:
    """Read a readout of this potential.

    Raises:
        ValueError: if the file is missing, damaged, no readout, or of another potential.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: install druse-energetics again, or {_REBUILD}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "null"))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file ({error}): {_REBUILD}") from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError(f"{path} holds no band-gap readout that this version of Druse reads: {_REBUILD}")
    if header.get("potential") != getattr(potential, "digest", None):
        if potential.name != "sevennet-0":
            raise ValueError(
                f'band gaps are read from features of sevennet-0, not of {potential.name}: load "sevennet-0"'
            )
        raise ValueError(
            f"{path} was trained on other weights than the installed sevennet-0 has "
            f"({header.get('provenance', {}).get('package', 'unknown version')}): install that version, or {_REBUILD}"
        )
    try:
        width, channels = tensors["of_atoms.1.weight"].shape
        readout = BandGapReadout(channels, width=width)
        readout.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())[:200]}): {_REBUILD}") from error
    return StoredReadout(readout=readout.eval(), potential=header["potential"], provenance=header["provenance"])
