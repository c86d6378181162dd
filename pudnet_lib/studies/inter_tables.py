"""Tables of the inter-dataset comparison: gains on each unseen source, what a new source may expect, distance and gain.

Our choice. Accuracies and paired gains are made as in the intra-dataset comparison. Its "all sources" holds for these
very sources; for a source that nobody has tried, the sources themselves are the sample: "a new source" has Student's
interval over the sources' means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pudnet_lib.evaluate import Interval, interval
from pudnet_lib.results import Headline
from pudnet_lib.studies import intra_tables
from pudnet_lib.studies.intra_tables import ALL, DESIGNS, reference, summary
from pudnet_lib.studies.trust_calibration import bias, calibration_error, coverage

NEW = "a new source"
SHARED = "gain over shared"


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What each PudNet gains over the controls and over training from scratch, paired, in percentage points.

    Args:
        table: From ``inter_dataset.run``.

    Returns:
        As ``intra_tables.gains``, with more rows of dataset "a new source": n is the number of sources.
    """
    found = intra_tables.gains(table)
    rows: list[dict[str, Any]] = []
    keys = ["target", "ways", "method", "metric"]
    for values, part in found[found["dataset"] != ALL].groupby(keys, sort=False):
        if len(part) > 1:
            row = dict(zip(keys, values, strict=True)) | {"dataset": NEW} | vars(interval(part["mean"].to_numpy()))
            rows.append(row | {"seeds": int(part["seeds"].max())})
    return pd.concat([found, pd.DataFrame(rows)], ignore_index=True)


def similarity(table: pd.DataFrame, trust: pd.DataFrame) -> pd.DataFrame:
    """Each unseen source's distance to its pool, beside what the prediction gains there.

    Args:
        table: From ``inter_dataset.run``.
        trust: From ``inter_dataset.trust``.

    Returns:
        One row a design, dataset and metric ("gain over shared" and over GC from scratch): distance (mean over episodes
        and seeds, in medians of the pool's own), distance_low, distance_high (the seeds' smallest and largest), mean,
        low, high in points.
    """
    episodes = table[table["ways"] == table["ways"].iloc[0]]
    found = gains(episodes)
    wanted = (SHARED, f"gain over {reference(episodes)}")
    tables = []
    for (method, dataset), part in trust.groupby(["method", "dataset"], sort=False):
        seeds = part.groupby("seed")["distance"].mean()
        place = {"distance": seeds.mean(), "distance_low": seeds.min(), "distance_high": seeds.max()}
        mine = found[(found["method"] == method) & (found["dataset"] == dataset) & found["metric"].isin(wanted)]
        tables.append(mine.assign(**place))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def rank_correlation(rows: pd.DataFrame) -> tuple[float, float]:
    """Spearman's ρ of distance and gain over sources, and its exact two-sided p-value (all permutations, if few).

    Args:
        rows: Of one design and metric, from ``similarity``.

    Returns:
        ρ and p; NaN with fewer than three sources.
    """
    x, y = rows["distance"].to_numpy(), rows["mean"].to_numpy()
    if len(x) < 3:
        return float("nan"), float("nan")

    def statistic(shuffled: np.ndarray) -> float:
        return float(stats.spearmanr(shuffled, y).statistic)

    found = stats.permutation_test((x,), statistic, permutation_type="pairings", n_resamples=5040, rng=0)
    return float(found.statistic), float(found.pvalue)


def headline(table: pd.DataFrame) -> list[Headline]:
    """The report's headline lines, of the episodes and not of the whole datasets."""
    return intra_tables.headline(table[table["ways"] == table["ways"].iloc[0]])


def rows_to_publish(table: pd.DataFrame, trust: pd.DataFrame) -> pd.DataFrame:
    """Accuracies, gains and the calibration of the trust report in one table; infinite break-evens become empty."""
    rows = [summary(table), gains(table)]
    for method, part in trust.groupby("method", sort=False):
        for metric, found in (("trust: calibration error", calibration_error(part)), ("trust: bias", bias(part))):
            rows.append(pd.DataFrame([{"method": method, "metric": metric, "dataset": ALL} | vars(found)]))
        held = {"method": method, "metric": "trust: coverage", "dataset": ALL, "mean": coverage(part), "n": len(part)}
        rows.append(pd.DataFrame([held]))
    if not trust.empty:
        rows.append(similarity(table, trust).assign(metric=lambda t: "similarity: " + t["metric"]))
    return pd.concat(rows, ignore_index=True).replace([np.inf], np.nan)


def answer(table: pd.DataFrame, trust: pd.DataFrame, missing: tuple[str, ...] = ()) -> str:
    """Say what the first design gains on a new source, and whether its estimate can be believed.

    Args:
        table: From ``inter_dataset.run``.
        trust: From ``inter_dataset.trust``.
        missing: Names of sources that were not there.

    Returns:
        A few sentences made from the numbers.
    """
    episodes = table[table["ways"] == table["ways"].iloc[0]]
    design = next(d for d in DESIGNS if d in set(episodes["method"]))
    rows = summary(episodes)
    own = rows[(rows["method"] == design) & (rows["dataset"] == ALL)].iloc[0]
    found = gains(episodes)
    mine = found[(found["method"] == design) & (found["dataset"] == NEW)].to_dict(orient="records")
    parts = [f"{r['metric']} {Interval(r['mean'], r['low'], r['high'], r['n']).signed()}" for r in mine]
    sources = list(dict.fromkeys(episodes["dataset"]))
    text = (
        f"On episodes of {episodes['ways'].iloc[0]} classes of a source left out of meta-training "
        f"({', '.join(sources)}; {episodes['target'].iloc[0]}) {design} reaches {own['mean']:.1f} % "
        f"[{own['low']:.1f}, {own['high']:.1f}]; on a new source one may expect, in points, {'; '.join(parts)} "
        f"(intervals over {len(sources)} sources)."
    )
    reports = trust[trust["method"] == design] if not trust.empty else trust
    if not reports.empty:
        text += (
            f" The trust report's estimate is off by {bias(reports).signed()} points in the mean (calibration error "
            f"{calibration_error(reports)}), and its interval holds the test accuracy in {coverage(reports):.0f} % of "
            f"{len(reports)} reports."
        )
    return text + (f" Left out, because not there: {', '.join(missing)}." if missing else "")
