"""From how many datasets on meta-training has paid for itself, against training from scratch to equal accuracy.

Our choice; the paper does not count meta-training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pudnet_lib.evaluate import Crossing


@dataclass(frozen=True)
class BreakEven:
    """From how many datasets on meta-training has paid for itself.

    Attributes:
        at: The number; infinite if it never does.
        low: Lower end of the 95 % interval.
        high: Upper end; infinite if "never" can't be excluded.
        bound: ``"at most"`` where scratch never reaches PudNet, ``"at least"`` where it is there from its first
            measurement on, else "".
        open_low: Whether the lower end is no more than "at most": scratch may never reach PudNet.
    """

    at: float
    low: float
    high: float
    bound: str = ""
    open_low: bool = False

    def text(self) -> str:
        """As text: "310 [200, 500]", "at most 90", "never"."""
        if math.isinf(self.at):
            return "never"
        low, high = (f"{end:,.0f}" if math.isfinite(end) else "never" for end in (self.low, self.high))
        return f"{self.bound} {self.at:,.0f} [{'at most ' * self.open_low}{low}, {high}]".strip()


def datasets_to_pay(meta: float, saved: float) -> float:
    """Datasets from which on meta-training has paid: its seconds over those that a dataset saves; infinite if none."""
    return meta / saved if saved > 0 else math.inf


def break_even(meta: float, seconds: float, scratch: Crossing) -> BreakEven:
    """Break-even against training from scratch to equal accuracy.

    Args:
        meta: Seconds of meta-training.
        seconds: Seconds of a prediction.
        scratch: Seconds at which scratch reaches the prediction's accuracy.

    Returns:
        The number of datasets; a longer training of scratch means an earlier break-even, so that the ends change
        sides. Where scratch never gets there, its longest training stands for it.
    """
    at, low, high = (
        datasets_to_pay(meta, min(place, scratch.last) - seconds) for place in (scratch.at, scratch.high, scratch.low)
    )
    bound = {"never": "at most", "before": "at least"}.get(scratch.censored, "")
    return BreakEven(at, low, high, bound, math.isinf(scratch.high))
