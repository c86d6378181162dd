"""The one error type for bad input: it names the thing, what was expected, and the fix.

Our choice; the paper has no counterpart. The command line prints these without a traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class PudNetError(ValueError):
    """Bad input from the user; the message names the thing, the expectation and the remedy."""


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> PudNetError:
    """Build the error for an unknown name, with the nearest known one."""
    names = sorted(known)
    near = get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.4)
    nearest = next((n for n in names if near and n.lower() == near[0]), None)
    guess = f" Did you mean {nearest!r}?" if nearest else ""
    extra = f" {hint}" if hint else ""
    return PudNetError(f"Unknown {kind} {name!r}.{guess} Known: {', '.join(names)}.{extra}")
