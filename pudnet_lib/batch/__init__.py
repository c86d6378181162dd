"""Batches of notebooks behind one door: papermill, engines, report pages, kernels; notebooks need none of it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Goes with the last module-based notebook.
_HOMES = {
    "Headline": "pudnet_lib.results",
    "publish": "pudnet_lib.batch.results",
    "summarise": "pudnet_lib.batch.results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
