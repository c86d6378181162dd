"""Energy of a piece of work, where NVIDIA's management library (NVML) gives it; else plainly not available.

Our choice. ``pynvml`` is optional: it is imported if it is there and never needed. The counter is the whole GPU's, so
that other work on it counts too.
"""

from __future__ import annotations

import math
from importlib import import_module
from types import TracebackType
from typing import Any

import torch


def energy_text(joules: float) -> str:
    """As text: "12.3 J", or "not available" for NaN."""
    return "not available" if math.isnan(joules) else f"{joules:.3g} J"


class EnergyMeter:
    """Joules that a GPU uses within a ``with`` block.

    Args:
        device: Where the work runs.

    Attributes:
        joules: After the block, the energy; NaN where it can't be measured.
        reason: Why it can't, or "".
    """

    def __init__(self, device: torch.device | str) -> None:
        self.joules, self.reason = float("nan"), ""
        self._handle: Any = None
        self._nvml: Any = None
        where = torch.device(device)
        if where.type != "cuda":
            self.reason = "not available: NVML measures GPUs only"
            return
        try:
            self._nvml = import_module("pynvml")
            self._nvml.nvmlInit()
            self._handle = self._nvml.nvmlDeviceGetHandleByIndex(where.index or 0)
            self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except ImportError:
            self.reason = "not available: pynvml is not installed"
        except Exception as error:  # NVML has an exception class a code, none of which pynvml exports as one base
            self._handle, self.reason = None, f"not available: {error}"

    def __enter__(self) -> EnergyMeter:
        self._began = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.joules = self._read() - self._began

    def _read(self) -> float:
        if self._handle is None or self.reason:
            return float("nan")
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000  # millijoules
