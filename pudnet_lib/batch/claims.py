"""The numbers that the paper's abstracts state, beside which the report's headline table puts ours.

[abs] only: arXiv 2310.11862 and the ICLR 2023 draft. Nothing else of the paper could be checked.
"""

from __future__ import annotations

from typing import Any

#: In the order of the headline table; ``claim`` is what a ``Headline`` names.
CLAIMS: tuple[dict[str, Any], ...] = (
    {
        "claim": "draft",
        "setting": "ResNet-18, dataset not named, Adam",
        "source": "abstract of the draft (ICLR 2023 submission)",
        "metric": "top-1 accuracy, %",
        "scratch": "74.56",
        "scratch_seconds": "119 GPU s",
        "predicted": "73.33",
        "predicted_seconds": "0.5 GPU s",
        "ratio": "238 ×",
        "chance": "—",
    },
    {
        "claim": "imagenet",
        "setting": "ResNet-18, ImageNet-1K, gradient centralization",
        "source": "abstract of the paper (arXiv 2310.11862)",
        "metric": "top-5 accuracy, %",
        "scratch": "44.65",
        "scratch_seconds": "8,967 GPU s",
        "predicted": "44.92",
        "predicted_seconds": "3.89 GPU s",
        "ratio": "2,305 ×",
        "chance": "—",
    },
)
