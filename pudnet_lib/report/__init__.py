"""What notebooks need to show and to hand over their results."""

from pudnet_lib.experiments.record import Headline
from pudnet_lib.report.results import publish, summarise

__all__ = ["Headline", "publish", "summarise"]
