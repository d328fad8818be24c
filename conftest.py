"""In tests, and only there, beartype checks every annotated shape and type of every member."""

from collections.abc import Iterator
from pathlib import Path

from jaxtyping import install_import_hook

# An int may stand for a float, as type checkers see it.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

# Crystal and CrystalBatch refuse what a user brings in their own words, which is what their tests ask for. A module
# that a test compiles with torch.compile(fullgraph=True) belongs here too: checks cannot be traced. (Without fullgraph,
# compiled code works and is checked, but breaks into many small graphs.)
UNCHECKED = {"druse_crystal.crystal", "druse_crystal.batch"}


def checked_modules() -> Iterator[str]:
    """Names of all modules of all members, but for the unchecked."""
    root = Path(__file__).parent
    for source in (*root.glob("packages/*/src"), *root.glob("apps/*/src"), root / "benchmarks" / "src"):
        for file in source.rglob("*.py"):
            name = ".".join(file.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
            if "." in name and name not in UNCHECKED:
                yield name


install_import_hook(list(checked_modules()), CHECKER)
