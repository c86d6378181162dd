"""Tables of the denoising experiment: means, paired gains, break-even, and the sentence that reads them. Our choice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import Interval, interval
from pudnet_lib.results import Headline
from pudnet_lib.studies.denoising_cases import BM3D, NOISY, PUDNET, SHARED

ALL = "all sources"
SCRATCH = "Noise2Void from scratch"
#: Gain → the rival that is subtracted.
GAINS = {
    "gain over the noisy input": NOISY,
    "far gain": f"{PUDNET}, far swap",
    "near gain": f"{PUDNET}, near swap",
    "gain over the shared network": SHARED,
    "gain over the wrong noise level": f"{PUDNET}, other noise level",
    "gain over Noise2Void meta-training": f"{PUDNET}, Noise2Void meta-training",
    "gain over BM3D": BM3D,
    "gain over non-local means": "non-local means",
    "gain over total variation": "total variation",
}


def longest(methods: Mapping[str, Any] | set[str], start: str = SCRATCH) -> str | None:
    """Name the method with the most steps among those whose name starts so; None if there is none."""
    found = [m for m in methods if m.startswith(start) and m.endswith(" steps")]
    return max(found, key=lambda m: int(m.split()[-2])) if found else None


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over images of each method, source, noise level and metric, and what it costs.

    Args:
        table: From ``denoising.run``.

    Returns:
        One row each: method, dataset ("all sources" pools their images), sigma, metric, mean, low, high, n, seeds,
        prediction_seconds, seconds_per_100, meta_training_seconds, break_even (datasets from which on meta-training
        has paid for itself against the longest Noise2Void from scratch; NaN where there is none).
    """
    rows: list[dict[str, Any]] = []
    for (sigma, metric), part in table.groupby(["sigma", "metric"], sort=False):
        rival = longest(set(part["method"]))
        for dataset in [*dict.fromkeys(part["dataset"]), ALL]:
            here = part if dataset == ALL else part[part["dataset"] == dataset]
            scratch = here.loc[here["method"] == rival, "prediction_seconds"].mean() if rival else math.nan
            for method, own in here.groupby("method", sort=False):
                costs = {c: float(own[c].mean()) for c in ("prediction_seconds", "seconds_per_100")}
                meta = float(own["meta_training_seconds"].mean())
                saved = scratch - costs["prediction_seconds"]
                paid = meta / saved if saved > 0 else math.nan
                row = {"method": method, "dataset": dataset, "sigma": sigma, "metric": metric}
                row |= vars(interval(own["value"].to_numpy())) | costs
                rows.append(row | {"meta_training_seconds": meta, "break_even": paid})
    return pd.DataFrame(rows)


def gain(
    table: pd.DataFrame, over: str, sigma: float, method: str = PUDNET, metric: str = "PSNR", dataset: str = ALL
) -> Interval:
    """Paired difference between two methods on the images that both have.

    Args:
        table: From ``denoising.run``.
        over: The method that is subtracted.
        sigma: The noise level.
        method: The other method.
        metric: ``"PSNR"`` (dB) or ``"SSIM"``.
        dataset: A source, or all together.

    Returns:
        Mean and 95 % interval over images.

    Raises:
        PudNetError: If one of them was not measured at this level.
    """
    rows = table[(table["sigma"] == sigma) & (table["metric"] == metric) & table["method"].isin([method, over])]
    if dataset != ALL:
        rows = rows[rows["dataset"] == dataset]
    wide = rows.pivot(index=["dataset", "image"], columns="method", values="value").dropna()
    if method not in wide or over not in wide or len(wide) < 2:
        raise PudNetError(f"No images with both {method!r} and {over!r} at σ = {sigma:g}.")
    return interval((wide[method] - wide[over]).to_numpy())


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What the main PudNet gains over controls and rivals, paired on the same images, in dB of PSNR.

    Args:
        table: From ``denoising.run``.

    Returns:
        One row a noise level, source and gain: method, dataset, sigma, metric, mean, low, high, n, seeds.
    """
    rows: list[dict[str, Any]] = []
    for sigma, part in table.groupby("sigma", sort=False):
        methods = set(part["method"])
        rival = longest(methods)
        pairs = GAINS | ({f"gain over {rival}": rival} if rival else {})
        for name, over in pairs.items():
            if over not in methods:
                continue
            for dataset in [*dict.fromkeys(part["dataset"]), ALL]:
                found = gain(part, over, float(str(sigma)), dataset=dataset)
                row = {"method": PUDNET, "dataset": dataset, "sigma": sigma, "metric": f"{name}, dB"}
                rows.append(row | vars(found))
    return pd.DataFrame(rows)


def rows_to_publish(table: pd.DataFrame) -> pd.DataFrame:
    """Means and gains in one table for the result file; where BM3D could not run, a row says so."""
    parts = [summary(table), gains(table)]
    if BM3D not in set(table["method"]):
        absent = {"method": f"{BM3D} (not run: package missing or switched off)", "dataset": ALL, "metric": "PSNR"}
        parts.append(pd.DataFrame([absent | {"mean": np.nan, "low": np.nan, "high": np.nan, "n": 0, "seeds": 0}]))
    return pd.concat(parts, ignore_index=True)


def answer(table: pd.DataFrame) -> str:
    """One sentence made from the numbers."""
    words = {NOISY: "the noisy input", SHARED: "a shared U-Net", f"{PUDNET}, far swap": "another source's sketch"}
    words |= {f"{PUDNET}, near swap": "other classes' sketch", BM3D: "BM3D"}
    words |= {name: name for name in ("non-local means", "total variation")}
    parts = []
    for sigma in dict.fromkeys(table["sigma"]):
        rows = table[table["sigma"] == sigma]
        known = set(rows["method"])
        rival = longest(known)
        compared = words | ({rival: rival} if rival else {})
        said = [f"{_db(gain(rows, m, sigma))} over {text}" for m, text in compared.items() if m in known]
        parts.append(f"at σ = {sigma:g} {', '.join(said)}")
    count = table.groupby("dataset")["image"].nunique().min()
    return f"A predicted U-Net gains ({count} images a source): {'; '.join(parts)}."


def _db(found: Interval) -> str:
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}] dB"


def headline(table: pd.DataFrame) -> list[Headline]:
    """The report's headline lines: the longest Noise2Void from scratch beside the predicted network, all sources."""
    lines = []
    means = summary(table)
    means = means[(means["dataset"] == ALL) & (means["metric"] == "PSNR")]
    for sigma, part in means.groupby("sigma", sort=False):
        rows = {str(row["method"]): row for row in part.to_dict(orient="records")}
        rival = longest(rows)
        if rival is None or PUDNET not in rows:
            continue
        scratch, predicted = rows[rival], rows[PUDNET]
        lines.append(
            Headline(
                f"U-Net of width 12, σ = {sigma:g}, {rival} against {PUDNET}",
                "PSNR, dB (chance: the noisy input)",
                float(scratch["mean"]),
                float(scratch["prediction_seconds"]),
                float(predicted["mean"]),
                float(predicted["prediction_seconds"]),
                float(rows[NOISY]["mean"]),
                (float(scratch["low"]), float(scratch["high"])),
                (float(predicted["low"]), float(predicted["high"])),
            )
        )
    return lines
