"""The card of the embedded dataset, written from the data themselves."""

from collections import Counter

import numpy as np
from druse_crystal.dataset import CrystalDataset

_LABELS = {
    "formation_energy_per_atom": (
        "eV/atom",
        "by Materials Project id (2018 release), moved to the elemental references of the hull",
    ),
    "energy_above_hull": ("eV/atom", "distance of the formation energy to `hull.parquet`, an exact linear program"),
    "dft_band_gap": ("eV", "PBE, by Materials Project id"),
    "dft_bulk_modulus": ("GPa", "Voigt-Reuss-Hill average of the PBE elastic tensor"),
    "dft_shear_modulus": ("GPa", "Voigt-Reuss-Hill average of the PBE elastic tensor"),
    "dft_mag_density": ("µB/Å³", "total moment of the composition's ground state over the primitive cell's volume"),
}


def card(dataset: CrystalDataset, *, vertices: int, known: int) -> str:
    """Markdown: source, licence, level of theory, filters, counts, split and label coverage.

    Args:
        dataset: the embedded structures.
        vertices: number of phases on the hull beside it.
        known: number of known compositions.
    """
    metadata = dataset.metadata
    return _TEMPLATE.format(
        structures=len(dataset),
        elements=len(set(np.concatenate([c.atomic_numbers for c in dataset.crystals]).tolist())),
        formulas=len(set(dataset.formulas.tolist())),
        source=metadata["source"],
        licence=metadata["licence"],
        level=metadata["level_of_theory"],
        filters=metadata["filters"],
        packages=metadata["packages"],
        labels="\n".join(_label_row(dataset, name) for name in dataset.labels),
        splits="\n".join(_split_row(dataset, name) for name in ("train", "val", "test", "")),
        atoms=_atoms(dataset),
        near=int((dataset.labels["energy_above_hull"] <= 0.1).sum()),
        reasons=_reasons(metadata["refused"]),
        shifts=", ".join(
            f"{symbol} {1000 * shift:+.1f}" for symbol, shift in sorted(metadata["reference_shifts"].items())
        ),
        below=int((dataset.labels["energy_above_hull"] < -1e-3).sum()),
        refused=len(metadata["refused"]),
        vertices=vertices,
        known=known,
    )


def _label_row(dataset: CrystalDataset, name: str) -> str:
    values = dataset.labels[name]
    values = values[np.isfinite(values)]
    unit, meaning = _LABELS[name]
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    share = len(values) / len(dataset)
    return f"| `{name}` | {unit} | {len(values)} ({share:.0%}) | {low:.3g} / {middle:.3g} / {high:.3g} | {meaning} |"


def _split_row(dataset: CrystalDataset, name: str) -> str:
    chosen = dataset.split == name
    return f"| {name or '(none)'} | {chosen.sum()} | {len(set(dataset.formulas[chosen].tolist()))} |"


def _atoms(dataset: CrystalDataset) -> str:
    edges = [(1, 4), (5, 8), (9, 12), (13, 16), (17, 20)]
    counts = [((dataset.num_atoms >= low) & (dataset.num_atoms <= high)).sum() for low, high in edges]
    return ", ".join(f"{low}-{high}: {count}" for (low, high), count in zip(edges, counts, strict=True))


def _reasons(refused: dict[str, str]) -> str:
    def kind(reason: str) -> str:
        for start in ("the same structure", "cannot be read", "cannot be standardised", "two atoms are"):
            if reason.startswith(start):
                return {"the same structure": "repeat a structure that is in already", "two atoms are": "overlap"}.get(
                    start, start
                )
        return "have more than 20 atoms in the primitive cell"

    counts = Counter(kind(reason) for reason in refused.values())
    return "; ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))


_TEMPLATE = """\
# Embedded crystals: {structures} known structures with DFT labels

`embedded.parquet` holds {structures} inorganic crystals with at most 20 atoms in the primitive cell: {formulas} reduced
formulas, {elements} elements, {near} structures within 0.1 eV/atom of the hull. Atoms per cell: {atoms}.
Read it with `druse_crystal.dataset.load_embedded()`.

Beside it, in `druse_energetics`: `hull.parquet`, the {vertices} vertices of the DFT hull by composition (elements at
zero), and `known_formulas.parquet`, the reduced formulas of all {known} ground states it was taken from.

**Source and attribution.** {source}.

**Licence.** {licence} (data of the Materials Project). Whoever passes the data on names the Materials Project.

**Level of theory.** {level}. Structures are relaxed at the same level.

**Made from** {packages}, by `druse-train data build-embedded`; two builds give the same bytes.

## Form
Every structure is in the form that the models learn: primitive cell (tolerance 0.25 Å), Niggli-reduced, lattice turned
to its symmetric polar form; lattice in Å and fractional coordinates rounded to 1e-6.

## Filters
{filters}. Refused: {refused} ({reasons}); the file's metadata name every one with its reason
(`load_embedded().metadata["refused"]`).

## Split
By composition: no reduced formula is in two splits. A list of formulas that public benchmarks keep for testing goes to
`test`; of the others the SHA-256 of the formula sends one in ten to `val`. Elemental structures without a Materials
Project id belong to no split: nobody can tell whether a benchmark holds them out.

| split | structures | formulas |
|---|---|---|
{splits}

## Labels
NaN means unknown.

| label | unit | known | least / median / greatest | what |
|---|---|---|---|---|
{labels}

## Limits
* Labels are of the release of 2018, the hull of a somewhat later one. Between the two the reference energies of a few
  elements changed; formation energies of compounds are moved to the hull's references by (meV per atom of the element)
  {shifts}. {below} structures still lie more than 1 meV/atom below the hull.
* Energies are of 2018-2019. The Materials Project has changed its corrections since; its formation energies of today
  differ, most for oxides and fluorides of transition metals.
* Elemental structures without an id have their formation energy from total energies against the element's lowest one.
* A moment is known per composition, not per structure; it is given to a structure only when its formation energy is
  within 5 meV/atom of the composition's ground state. Whether a material is magnetic is far more certain than how much:
  antiferromagnets were mostly computed as ferromagnets.
* Noble gases are not on the hull: their compounds have no `energy_above_hull`.
"""
