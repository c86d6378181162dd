"""Tables of the cost experiment: points, Pareto front, ratios at equal accuracy, break-even, the sentence.

Our choice. A ratio compares PudNet's seconds with those at which training from scratch first reaches PudNet's accuracy
on the same datasets; every measured point of every budget and optimiser counts for scratch. Where scratch never gets
there, or is there at its first measured point, the ratio is a bound, and is printed as one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import Crossing, Interval, crossing, difference, earliest, student_bounds
from pudnet_lib.results import Headline
from pudnet_lib.studies.break_even import break_even
from pudnet_lib.studies.energy import energy_text
from pudnet_lib.studies.fine_tuning_tables import on_grid, places_of

PUDNET, SCRATCH = "PudNet", "from scratch"
#: The abstracts' ratios, for the figures [abs].
CLAIMED_RATIOS = {"238 × [abs]": 238.0, "2,305 × [abs]": 2305.0}


def pareto(seconds: ArrayLike, values: ArrayLike) -> NDArray[np.bool_]:
    """Tell which points no other point beats: none is at least as fast and as good, and better in one of the two.

    Args:
        seconds: (P,) lower is better.
        values: (P,) higher is better.

    Returns:
        (P,) mask of the front.
    """
    s, v = np.asarray(seconds, dtype=float), np.asarray(values, dtype=float)
    no_worse = (s[None] <= s[:, None]) & (v[None] >= v[:, None])
    better = (s[None] < s[:, None]) | (v[None] > v[:, None])
    return np.asarray(~(no_worse & better).any(axis=1))


def points(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and seconds of each method: of a trained one, at the end of each of its budgets.

    Args:
        table: From ``cost.run``.

    Returns:
        One row a dataset, size, method and budget (the first is the least): mean, low, high in %, n, seeds, chance,
        images and seconds (medians), prediction_seconds, meta_training_seconds, energy (text), and whether it is on the
        front.
    """
    keys = ["dataset", "size", "method", "episode", "budget"]
    last = table[table["step"] == table.groupby(keys)["step"].transform("max")].copy()
    # A budget's number of steps may differ between episodes of one size: number budgets in their order.
    last["run"] = last.groupby(["dataset", "size", "method", "episode"])["budget"].rank(method="dense")
    rows: list[dict[str, Any]] = []
    for (dataset, size, method, _), part in last.groupby(["dataset", "size", "method", "run"], sort=False):
        mean, low, high = (float(bound[0]) for bound in student_bounds(part[["value"]].to_numpy()))
        row = {"method": method, "dataset": dataset, "size": size, "budget": part["budget"].median()}
        row |= {"mean": mean, "low": low, "high": high, "n": len(part), "seeds": 1}
        numbers = ["chance", "images", "seconds", "prediction_seconds", "meta_training_seconds", "joules"]
        rows.append(row | {name: float(part[name].median()) for name in numbers})
    found = pd.DataFrame(rows)
    found["energy"] = [energy_text(joules) for joules in found.pop("joules")]
    found["front"] = False
    rivals = found[~found["method"].str.endswith("swap")]  # a swap is a control and no way to get a network
    for _, part in rivals.groupby(["dataset", "size"]):
        found.loc[part.index, "front"] = pareto(part["seconds"], part["mean"])
    return found


def equal_accuracy(
    table: pd.DataFrame, dataset: str, size: int, method: str = PUDNET, rival: str = SCRATCH
) -> Crossing:
    """Seconds at which a trained rival first reaches a prediction's accuracy on the same datasets.

    Args:
        table: From ``cost.run``.
        dataset: The source.
        size: One of its sizes.
        method: The prediction.
        rival: End of the rivals' names; the fastest of them counts.

    Returns:
        The earliest crossing over all runs, by interpolation over the logarithm of the seconds.

    Raises:
        PudNetError: If one of the two is not in the table.
    """
    here = table[(table["dataset"] == dataset) & (table["size"] == size)]
    ours = here[here["method"] == method].sort_values("episode")
    rivals = here[here["method"].str.endswith(rival) & (here["step"] > 0)]  # step 0 took no seconds
    if ours.empty or rivals.empty:
        raise PudNetError(f"The table has no {method!r} and {rival!r} for {dataset} at {size} images.")
    numbered = rivals.assign(run=rivals.groupby(["method", "episode"])["budget"].rank(method="dense"))
    found = []
    for _, run in numbered.groupby(["method", "run"], sort=False):
        places = places_of(run, "seconds")
        began = min(places[-1], run.groupby("episode")["seconds"].min().max())
        places = places[places >= began]  # where all of them were measured
        level = ours.set_index("episode")["value"].loc[sorted(set(run["episode"]))].to_numpy()
        found.append(crossing(places, on_grid(run, places, "seconds") - level[:, None], log=True))
    return earliest(found)


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """How many times faster a prediction is at equal accuracy, and from how many datasets on it pays.

    Args:
        table: From ``cost.run``.

    Returns:
        One row a method, dataset and size: accuracy, seconds (median of a prediction), scratch_seconds (at equal
        accuracy), ratio, low, high (infinite where scratch is not sure to get there), censored ("", "never" or
        "before"), ratio_text, break_even and break_even_text, best_gap (scratch's best budget minus the prediction, in
        points) as text, meta_training_seconds.
    """
    rows: list[dict[str, Any]] = []
    for (dataset, size), here in table.groupby(["dataset", "size"], sort=False):
        for method in (m for m in (PUDNET, "shared network") if m in set(here["method"])):
            ours = here[here["method"] == method]
            seconds = float(ours["seconds"].median())
            found = equal_accuracy(here, str(dataset), int(str(size)), method)
            times, meta = found.scaled(1 / seconds), float(ours["meta_training_seconds"].median())
            paid = break_even(meta, seconds, found)
            row = {"method": method, "dataset": dataset, "size": size, "images": ours["images"].median()}
            row |= {"accuracy": ours["value"].mean(), "seconds": seconds, "scratch_seconds": found.at}
            row |= {"ratio": times.at, "low": times.low, "high": times.high, "limit": times.last}
            row |= {"censored": found.censored, "ratio_text": times.text(1), "break_even": paid.at}
            row |= {"break_even_text": paid.text(), "best_gap": best_gap(here, method).signed(), "n": len(ours)}
            row["meta_training_seconds"] = meta
            rows.append(row)
    return pd.DataFrame(rows)


def best_gap(here: pd.DataFrame, method: str = PUDNET, rival: str = SCRATCH) -> Interval:
    """Scratch's best budget minus a prediction at the end of training, in points, paired.

    Args:
        here: ``cost.run``'s rows of one dataset and size.
        method: The prediction.
        rival: End of the rivals' names.

    Returns:
        The difference; choosing the best budget on the same datasets flatters scratch a little.
    """
    rivals = here[here["method"].str.endswith(rival)]
    keys = ["method", "episode", "budget"]
    last = rivals[rivals["step"] == rivals.groupby(keys)["step"].transform("max")].copy()
    last["run"] = last.groupby(["method", "episode"])["budget"].rank(method="dense")
    means = last.groupby(["method", "run"])["value"].mean()
    name, run = means.index[int(means.argmax())]
    best = last[(last["method"] == name) & (last["run"] == run)]
    both = pd.concat([best.assign(method="rival"), here[here["method"] == method]])
    return difference(both, "rival", method)


def break_evens(table: pd.DataFrame) -> pd.DataFrame:
    """The part of ``ratios`` that is about meta-training: method, dataset, size, break-even as number and text."""
    return ratios(table)[["method", "dataset", "size", "break_even", "break_even_text"]]


def middle_size(table: pd.DataFrame) -> int:
    """The size that sentence and headline speak of: the middle one, that has the most datasets."""
    sizes = sorted(set(table["size"]))
    return int(sizes[len(sizes) // 2])


def answer(table: pd.DataFrame) -> str:
    """Say in one sentence how many times faster a prediction is, and from when on it pays, for each source."""
    size = middle_size(table)
    found = ratios(table[table["size"] == size])
    parts = []
    for row in found[found["method"] == PUDNET].to_dict(orient="records"):
        plainly = {
            "never": f"; scratch does not get there in {row['limit'] * row['seconds']:.1f} s",
            "before": "; scratch is there at its first measured point",
        }.get(str(row["censored"]), "")
        pays = "never pays" if math.isinf(row["break_even"]) else f"pays from {row['break_even_text']} datasets on"
        parts.append(
            f"{row['dataset']} {row['ratio_text']} times faster than training from scratch ({row['accuracy']:.1f} % in "
            f"{row['seconds']:.3f} s{plainly}) and {pays}"
        )
    images = found["images"].median()
    return (
        f"At equal accuracy on datasets of about {images:.0f} images of unseen classes a prediction is, with 95 % "
        f"intervals over n = {int(found['n'].min())} datasets a source: {'; '.join(parts)} (one seed of meta-training)."
    )


def headline(table: pd.DataFrame) -> list[Headline]:
    """The report's headline lines: scratch stopped where it is as good as PudNet, so that the seconds compare.

    Args:
        table: From ``cost.run``.

    Returns:
        One line a source, at the middle size. Where scratch is never as good, its best budget stands there.
    """
    size, lines = middle_size(table), []
    rows = points(table[table["size"] == size])
    for dataset, here in rows.groupby("dataset", sort=False):
        found = here.to_dict(orient="records")
        ours = next(row for row in found if row["method"] == PUDNET)
        best = max((row for row in found if str(row["method"]).endswith(SCRATCH)), key=lambda row: row["mean"])
        reached = equal_accuracy(table, str(dataset), size)
        never = reached.censored == "never"
        which = {
            "never": f"{best['method']}: its best budget is not as good",
            "before": "scratch is as good at its first measured point",
            "": "scratch stopped at equal accuracy",
        }[reached.censored]
        lines.append(
            Headline(
                f"ConvNet-3, {ours['images']:.0f} images of unseen {dataset} classes, {which}",
                "top-1 accuracy, %",
                float(best["mean"] if never else ours["mean"]),
                float(best["seconds"] if never else reached.at),
                float(ours["mean"]),
                float(ours["seconds"]),
                float(ours["chance"]),
                (float(best["low"]), float(best["high"])) if never else None,
                (float(ours["low"]), float(ours["high"])),
            )
        )
    return lines


def rows_to_publish(table: pd.DataFrame, scaling: pd.DataFrame) -> pd.DataFrame:
    """Points, ratios and scaling in one table for the result file.

    Args:
        table: From ``cost.run``.
        scaling: From ``prediction_cost.scaling``.

    Returns:
        One row a method, dataset and metric; bounds are in ``reading``, infinite ends are empty.
    """
    every = points(table)
    budget = every["budget"].map(lambda steps: f", {steps:.0f} steps" if steps else "")
    accuracies = every.assign(method=every["method"] + budget, metric="accuracy").drop(columns="budget")
    accuracies["dataset"] = accuracies["dataset"] + accuracies["size"].map(lambda s: f", {s} images")
    found = ratios(table)
    named = found["dataset"] + found["size"].map(lambda s: f", {s} images")
    facts = {"method": found["method"], "dataset": named, "n": found["n"], "seeds": 1}
    times = pd.DataFrame({**facts, "metric": "times faster at equal accuracy", "reading": found["ratio_text"]})
    times[["mean", "low", "high"]] = found[["ratio", "low", "high"]].to_numpy()
    paid = pd.DataFrame({**facts, "metric": "break-even, datasets", "reading": found["break_even_text"]})
    paid["mean"] = found["break_even"]
    grown = pd.DataFrame(
        {
            "method": scaling["factor"] + " " + scaling["level"],
            "dataset": "noise",
            "metric": "seconds of a prediction",
            "mean": scaling["seconds"],
            "megabytes": scaling["megabytes"],
            "parameters": scaling["parameters"],
            "energy": scaling["energy"],
        }
    )
    rows = pd.concat([accuracies, times, paid, grown], ignore_index=True)
    return rows.replace([np.inf, -np.inf], np.nan).drop(columns=["size"])
