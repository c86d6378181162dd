"""Tables of the fine-tuning experiment: curves, accuracies, paired gains, and where scratch overtakes. Our choice.

Sources have episodes of slightly different sizes, so that their curves are measured at different steps: they are
interpolated to common places before episodes of one index are averaged over sources.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import Crossing, Interval, crossed_interval, crossing, difference, student_bounds

ALL = "all sources"


def label(start: str, optimiser: str, trainable: str) -> str:
    """Name a method: "predicted, Adam", "random, GC, probe"."""
    return f"{start}, {optimiser}" + (", probe" if trainable == "probe" else "")


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """Only the rows of each training's last step."""
    keys = ["start", "optimiser", "trainable", "dataset", "episode", "rate"]
    return table[table["step"] == table.groupby(keys)["step"].transform("max")]


def _rows(table: pd.DataFrame, start: str, optimiser: str, trainable: str, dataset: str) -> pd.DataFrame:
    kept = (table["start"] == start) & (table["optimiser"] == optimiser) & (table["trainable"] == trainable)
    return table[kept if dataset == ALL else kept & (table["dataset"] == dataset)]


def places_of(rows: pd.DataFrame, over: str) -> NDArray[np.float64]:
    """Places that all trainings reach: every measured one up to the shortest training's end; of seconds 60 at most."""
    end = float(rows.groupby(["dataset", "episode"])[over].max().min())
    places = np.unique(rows[rows[over] <= end][over].to_numpy(dtype=float))
    return places if over == "step" or len(places) <= 60 else np.quantile(places, np.linspace(0, 1, 60))


def on_grid(rows: pd.DataFrame, places: NDArray[np.float64], over: str) -> NDArray[np.float64]:
    """Interpolate the curves of one method to common places.

    Args:
        rows: One method's rows of ``fine_tuning.run``.
        places: (E,) steps or seconds.
        over: ``"step"`` or ``"seconds"``; before its start is ready, a method is at chance.

    Returns:
        (G, E) accuracy in %, episodes of one index averaged over sources.
    """
    episodes = []
    for _, episode in rows.groupby("episode"):
        curves_of = [
            np.interp(places, part[over], part["value"], left=float(part["chance"].iloc[0]))
            for _, part in episode.sort_values(over).groupby("dataset")
        ]
        episodes.append(np.mean(curves_of, axis=0))
    return np.array(episodes)


def curves(
    table: pd.DataFrame, optimiser: str, trainable: str = "full", over: str = "step", dataset: str = ALL
) -> pd.DataFrame:
    """Mean curve of each start with its 95 % band over episodes.

    Args:
        table: From ``fine_tuning.run``.
        optimiser: Which.
        trainable: ``"full"`` or ``"probe"``.
        over: ``"step"``, or ``"seconds"`` from zero.
        dataset: One source, or all.

    Returns:
        Columns start, place, mean, low, high.
    """
    tables = []
    for start in dict.fromkeys(table["start"]):
        rows = _rows(table, start, optimiser, trainable, dataset)
        if rows.empty:
            continue
        places = places_of(rows, over)
        if over == "seconds":  # no line before the start is ready
            places = places[places >= rows["prediction_seconds"].max()]
        mean, low, high = student_bounds(on_grid(rows, places, over))
        tables.append(pd.DataFrame({"start": start, "place": places, "mean": mean, "low": low, "high": high}))
    return pd.concat(tables, ignore_index=True)


def overtaking(table: pd.DataFrame, start: str, optimiser: str, over: str = "step", dataset: str = ALL) -> Crossing:
    """Find where full training from scratch overtakes full training from another start, and stays ahead.

    Args:
        table: From ``fine_tuning.run``.
        start: The other start.
        optimiser: Of both.
        over: ``"step"``, or ``"seconds"`` from zero.
        dataset: One source, or all.

    Returns:
        The crossing of the paired difference.

    Raises:
        PudNetError: If one of the two was not trained.
    """
    ours, scratch = (_rows(table, s, optimiser, "full", dataset) for s in (start, "random"))
    if ours.empty or scratch.empty:
        raise PudNetError(f"The table has no full training with {optimiser} from {start!r} and from 'random'.")
    places = places_of(scratch, over)
    if over == "seconds":  # before the start is ready there is nothing to overtake
        places = places[places >= min(places[-1], ours["prediction_seconds"].max())]
    return crossing(places, on_grid(scratch, places, over) - on_grid(ours, places, over), stay=True)


def overtakings(table: pd.DataFrame) -> pd.DataFrame:
    """Where scratch overtakes the predicted and the shared start, for each optimiser and source.

    Args:
        table: From ``fine_tuning.run``.

    Returns:
        Columns start, optimiser, dataset, step and seconds, the last two as text with intervals.
    """
    full = table[table["trainable"] == "full"]
    rows = []
    for start in [s for s in ("predicted", "shared network") if s in set(full["start"])]:
        for optimiser in dict.fromkeys(full[full["start"] == "random"]["optimiser"]):
            for dataset in (*dict.fromkeys(full["dataset"]), ALL):
                row = {"start": start, "optimiser": optimiser, "dataset": dataset}
                row["step"] = overtaking(table, start, optimiser, "step", dataset).text()
                row["seconds"] = overtaking(table, start, optimiser, "seconds", dataset).text(2)
                rows.append(row)
    return pd.DataFrame(rows)


def interval_of(rows: pd.DataFrame) -> Interval:
    """Mean of one method's values with its 95 % interval, episodes of one index averaged over sources."""
    wide = rows.pivot_table(index="seed", columns=["dataset", "episode"], values="value")
    return crossed_interval(wide.T.groupby(level="episode").mean().T.to_numpy())


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each method before the first and after the last step, with its 95 % interval.

    Args:
        table: From ``fine_tuning.run``.

    Returns:
        One row a method, dataset ("all sources" is their mean) and metric: mean, low, high in %, n, seeds, chance,
        prediction_seconds (of the start), seconds (training included), meta_training_seconds, and break_even: datasets
        from which on meta-training has paid for itself, where it saves the seconds that scratch needs to get as far as
        the start is before its first step (all its seconds if it does not get there); NaN where nothing is saved.
    """
    rows: list[dict[str, Any]] = []
    for metric, part in (("accuracy", at_end(table)), ("accuracy at step 0", table[table["step"] == 0])):
        for (method, start, optimiser), mine in part.groupby(["method", "start", "optimiser"], sort=False):
            for dataset in (*dict.fromkeys(mine["dataset"]), ALL):
                own = mine if dataset == ALL else mine[mine["dataset"] == dataset]
                row = {"method": method, "dataset": dataset, "metric": metric, **vars(interval_of(own))}
                numbers = own[["chance", "prediction_seconds", "seconds", "meta_training_seconds"]].median().to_dict()
                saved = _seconds_to(table, str(start), str(optimiser), dataset) - numbers["prediction_seconds"]
                pays = numbers["meta_training_seconds"] > 0 and saved > 0
                rows.append(
                    row | numbers | {"break_even": numbers["meta_training_seconds"] / saved if pays else np.nan}
                )
    return pd.DataFrame(rows)


def _seconds_to(table: pd.DataFrame, start: str, optimiser: str, dataset: str) -> float:
    """Seconds that scratch needs to be as good as a start is at step 0; all it has if it never is."""
    scratch = _rows(table, "random", optimiser, "full", dataset)
    ours = table[(table["start"] == start) & (table["step"] == 0)]
    ours = _rows(ours, start, optimiser, "full", dataset)
    if scratch.empty or ours.empty:
        return np.nan
    places = places_of(scratch, "seconds")
    found = crossing(places, on_grid(scratch, places, "seconds") - on_grid(ours, places[:1] * 0, "step"))
    return min(found.at, found.last)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What the predicted start gains over every other one after the last step, paired, in points.

    Args:
        table: From ``fine_tuning.run``.

    Returns:
        One row a rival start, optimiser and what is trained, over all sources: mean, low, high in points, n, seeds.
    """
    rows = []
    for (optimiser, trainable), part in at_end(table).groupby(["optimiser", "trainable"], sort=False):
        for rival in (s for s in dict.fromkeys(part["start"]) if s != "predicted"):
            found = difference(part.assign(method=part["start"]), "predicted", rival)
            row = {"method": label("predicted", str(optimiser), str(trainable)), "dataset": ALL}
            rows.append(row | {"metric": f"gain over {rival}"} | vars(found))
    return pd.DataFrame(rows)


def answer(table: pd.DataFrame) -> str:
    """Say in one sentence what the predicted start is worth, and when scratch overtakes it."""
    full = table[table["trainable"] == "full"]
    last = at_end(full)
    optimisers = list(dict.fromkeys(last[last["start"] == "random"]["optimiser"]))
    start = interval_of(_rows(full[full["step"] == 0], "predicted", optimisers[0], "full", ALL))
    scratch_means = last[last["start"] == "random"].groupby("optimiser")["value"].mean()
    best = str(scratch_means.idxmax())  # the rival's best optimiser, not ours
    part = last[last["optimiser"] == best]
    named = part.assign(method=part["start"])
    ends = {s: interval_of(part[part["start"] == s]) for s in ("predicted", "random")}
    over = {s: difference(named, "predicted", s) for s in ("random", "shared network") if s in set(part["start"])}
    shared = f", {over['shared network'].signed()} over the shared network's start" if len(over) > 1 else ""
    steps = "; ".join(f"{o} {overtaking(table, 'predicted', o).text()}" for o in optimisers)
    return (
        f"On episodes of unseen {', '.join(dict.fromkeys(table['dataset']))} classes ({table['images'].median():.0f} "
        f"images) the predicted start stands at {start} % before the first step; after "
        f"{last['step'].median():.0f} steps of full training with {best}, the best optimiser from scratch, it is at "
        f"{ends['predicted']} % against {ends['random']} %: {over['random'].signed()} points over scratch{shared} "
        f"(n = {over['random'].n}, one seed of meta-training); the step from which scratch stays ahead: {steps}."
    )


def rows_to_publish(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies, gains and overtaking steps in one table; a censored crossing's mean is the end of the training."""
    rows = []
    full = table[(table["trainable"] == "full") & (table["start"] == "random")]
    for optimiser in dict.fromkeys(full["optimiser"]):
        for dataset in (*dict.fromkeys(full["dataset"]), ALL):
            found = overtaking(table, "predicted", optimiser, "step", dataset)
            ends = {name: min(getattr(found, name), found.last) for name in ("at", "low", "high")}
            row = {"method": f"scratch overtakes predicted, {optimiser}", "dataset": dataset, "metric": "step"}
            row |= {"mean": ends["at"], "low": ends["low"], "high": ends["high"], "n": full["episode"].nunique()}
            rows.append(row | {"seeds": 1, "reading": found.text()})
    return pd.concat([summary(table), gains(table), pd.DataFrame(rows)], ignore_index=True)
