"""What kept a structure from becoming a crystal: is the file at fault, or are its sites shared or partly empty?"""

from typing import Literal

DISORDERED = "disordered or partly occupied"
"""Words of every refusal of such sites."""


def refusal_status(reason: str | None) -> Literal["disordered", "unreadable"]:
    """``disordered`` for sites that are shared or partly empty, ``unreadable`` for everything else.

    Args:
        reason: why a structure was refused, such as the ``error`` of a ``ReadResult``.
    """
    return "disordered" if f" is {DISORDERED}" in (reason or "") else "unreadable"
