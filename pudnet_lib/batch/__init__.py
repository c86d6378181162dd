"""What notebooks need to show and to hand over their results; loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pudnet_lib.batch.results import publish, summarise
    from pudnet_lib.results import Headline

_HOMES = {
    "Headline": "pudnet_lib.results",
    "publish": "pudnet_lib.batch.results",
    "summarise": "pudnet_lib.batch.results",
}
__all__ = ["Headline", "publish", "summarise"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
