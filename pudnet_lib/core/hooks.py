"""Where other modules put faster or fuller ways of doing what core does plainly; core itself imports none of them."""

from collections.abc import Callable
from typing import Any

_REGISTERED: dict[str, Callable[..., Any]] = {}


def register(**functions: Callable[..., Any]) -> None:
    """Put functions in place, by name: speed.py, files.py and images do so when they are imported."""
    _REGISTERED.update(functions)


def hook(name: str, default: Callable[..., Any] | None = None) -> Any:
    """The function of that name; ``default`` where nothing was registered."""
    return _REGISTERED.get(name, default)
