"""`druse reference`: make references, look into them, merge them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from druse_crystal.console import Display, user_errors

if TYPE_CHECKING:
    from druse_energetics.built_reference import BuiltReference
    from druse_energetics.reference_entry import ReferenceEntry

reference_app = typer.Typer(
    name="reference",
    no_args_is_help=True,
    help="What crystals are judged against: build, describe and merge references.",
)

NOTHING = "Nothing was written."

Out = Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write, for --reference.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@reference_app.command("build")
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="embedded, materials-project, a published reference (.gz), or structures with energies (extxyz, JSON, "
            "Parquet, CSV).",
            show_default=False,
        ),
    ],
    out: Out,
    scheme: Annotated[
        str | None,
        typer.Option(
            help="Corrections of the energies: none, MP2020, TRI2024 or MP2018 (formation energies of the embedded "
            "hull). Energies of files are corrected by it.",
            show_default=False,
        ),
    ] = None,
    corrected: Annotated[bool, typer.Option("--corrected", help="The files' energies are corrected already.")] = False,
    level_of_theory: Annotated[str, typer.Option(help="Of the files' energies; PBE: with the usual +U.")] = "PBE",
    potential: Annotated[str, typer.Option(help="The files' energies are those of this potential.")] = "",
    chemical_system: Annotated[
        list[str] | None,
        typer.Option(help="Ask the Materials Project for this, e.g. Li-Fe-O; may be repeated.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Build a reference. What is not on its hull is listed with the reason in a .statuses.csv beside it.

    A query of the Materials Project needs `pip install mp-api` and your key in MP_API_KEY.
    """
    with user_errors("druse reference build", when_stopped=NOTHING):
        from druse_crystal.files import writable_folder
        from druse_energetics.built_reference import build_reference, checked_path

        writable_folder(checked_path(out).parent)
        with Display(quiet=quiet) as display:
            reference = build_reference(
                sources,
                scheme=scheme,
                corrected=corrected,
                level_of_theory=level_of_theory,
                potential=potential,
                chemical_systems=chemical_system or (),
                on_entry=lambda n: display.update("entries", n, n),
            )
        _write(reference, out, as_json=as_json)


@reference_app.command("merge")
def merge(
    references: Annotated[list[Path], typer.Argument(help="Built references, two or more.", show_default=False)],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Merge built references whose energies are of one kind; an entry that occurs twice is kept once."""
    with user_errors("druse reference merge", when_stopped=NOTHING):
        from druse_energetics.built_reference import checked_path, merge_references

        checked_path(out)
        _write(merge_references(references), out, as_json=as_json)


@reference_app.command("info")
def info(
    reference: Annotated[
        str,
        typer.Argument(help="A built reference, embedded, or embedded-POTENTIAL.", show_default=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Show what a reference holds: energies and their corrections, counts, elements, sources."""
    with user_errors("druse reference info"):
        from druse_energetics.built_reference import BuiltReference, summary
        from druse_energetics.embedded_description import describe_embedded, is_embedded

        if is_embedded(reference):
            description, facts = describe_embedded(reference)
        else:
            built = BuiltReference.read(reference)
            description, facts = built.description, summary(built)
        _say(facts, description.words, reference, as_json=as_json)


def _write(reference: "BuiltReference", out: Path, *, as_json: bool) -> None:
    from druse_energetics.built_reference import summary

    beside = reference.write(out)
    facts = summary(reference) | {"not_on_hull": str(beside)}
    _say(facts, reference.description.words, str(out), as_json=as_json)
    if not reference.description.statuses.get("kept"):
        lacking = ", ".join(facts["elements_without_zero"])
        Display().warn(
            f"nothing can be judged against {out} until it is merged with references of the pure elements {lacking}: "
            f"`druse reference merge {out} ELEMENTS.parquet --out BOTH.parquet`"
        )
    if not reference.left or as_json:
        return
    typer.echo(f"not on its hull: {len(reference.left)} entries")
    first: "dict[str, ReferenceEntry]" = {}
    for entry in reference.left:
        first.setdefault(entry.status, entry)
    for status, entry in first.items():
        number = sum(entry.status == status for entry in reference.left)
        typer.echo(f"  {number} {status.replace('_', ' ')}, such as {entry.id} ({entry.source}): {entry.message}")
    typer.echo(f"all of them, each with its reason: {beside}")


def _say(facts: "dict[str, Any]", words: str, name: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"file": name, **facts}, ensure_ascii=False, indent=2))
        return
    statuses = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in facts["statuses"].items())
    typer.echo(f"{name}: {words}")
    typer.echo(f"{facts['structures']} structures, {facts['with_energy']} with an energy; of the entries {statuses}")
    if "phases" in facts:
        typer.echo(f"{facts['phases']} phases on its hull")
    typer.echo(f"{len(facts['elements'])} elements: {' '.join(facts['elements'])}")
    if facts["elements_without_zero"]:
        typer.echo(
            f"no energy of the pure element: {' '.join(facts['elements_without_zero'])} "
            f"({facts['off_hull']} structures with energies are off the hull for it)"
        )
    for source in facts["sources"]:
        typer.echo(f"source: {source['name']}" + (f", {source['entries']} entries" if "entries" in source else ""))
