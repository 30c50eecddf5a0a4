"""Classical data sets in NONMEM-style columns; see ``data/PROVENANCE.md`` for their sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd


def load(name: str) -> pd.DataFrame:
    """Return a data set as a table that :func:`hierax.read_nonmem` reads.

    Parameters
    ----------
    name : str
        ``theophylline`` (mg, mg/L, h, kg), ``phenobarb`` (mg, mg/L, h, kg), ``indometh`` (mg/L, h), ``orange``
        (mm, days), ``sleepstudy`` (ms, days), ``orthodont`` (mm, years).

    Raises
    ------
    ValueError
        No such data set; the message lists those there are.
    """
    if name not in _LOADERS:
        raise ValueError(f"There is no data set {name!r}. Load one of {sorted(_LOADERS)}.")
    return _LOADERS[name]()


def folder() -> Path:
    """Return where the CSV files lie: inside the installed package, or beside ``src`` in a checkout."""
    installed = Path(__file__).parents[1] / "_datasets"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "data"


def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(folder() / f"{name}.csv")


def _theophylline() -> pd.DataFrame:
    """One dose record at t = 0 before the t = 0 sample, AMT = Dose·Wt in mg."""
    raw = _table("theoph")
    samples = pd.DataFrame(
        {"ID": raw["Subject"], "TIME": raw["Time"], "DV": raw["conc"], "AMT": 0.0, "EVID": 0, "WT": raw["Wt"]}
    )
    first = raw.groupby("Subject", sort=False).head(1)
    doses = pd.DataFrame(
        {"ID": first["Subject"], "TIME": 0.0, "DV": float("nan"), "AMT": first["Dose"] * first["Wt"], "EVID": 1}
    ).assign(WT=first["Wt"])
    # The dose row comes first at its time: a stable sort keeps it before the sample that it was put in front of.
    return _by_subject(pd.concat([doses, samples]))


def _phenobarb() -> pd.DataFrame:
    """Dose rows EVID 1, concentration rows EVID 0, weight, 5-minute Apgar score and its indicator."""
    raw = _table("phenobarb")
    dose = raw["dose"].notna()
    return pd.DataFrame(
        {
            "ID": raw["Subject"],
            "TIME": raw["time"],
            "DV": raw["conc"],
            "AMT": raw["dose"].fillna(0.0),
            "EVID": dose.astype(int),
            "WT": raw["Wt"],
            "APGAR": raw["Apgar"],
            "APGARIND": raw["ApgarInd"],
        }
    )


def _growth(file: str, subject: str, time: str, response: str, **covariates: str) -> Callable[[], pd.DataFrame]:
    """Return a loader of data without doses: TIME is the age, day or time, and DV the response."""

    def load_growth() -> pd.DataFrame:
        raw = _table(file)
        columns = {"ID": raw[subject], "TIME": raw[time].astype(float), "DV": raw[response].astype(float)}
        return _by_subject(pd.DataFrame(columns | {new: raw[old] for new, old in covariates.items()}))

    return load_growth


def _by_subject(frame: pd.DataFrame) -> pd.DataFrame:
    """Bring each subject's rows together, in time order, subjects in order of first appearance."""
    order = {subject: index for index, subject in enumerate(frame["ID"].unique())}
    rank = frame["ID"].map(order)
    return (
        frame.assign(_rank=rank)
        .sort_values(["_rank", "TIME"], kind="stable")
        .drop(columns="_rank")
        .reset_index(drop=True)
    )


_LOADERS: dict[str, Callable[[], pd.DataFrame]] = {
    "theophylline": _theophylline,
    "phenobarb": _phenobarb,
    "indometh": _growth("indometh", "Subject", "time", "conc"),
    "orange": _growth("orange", "Tree", "age", "circumference"),
    "sleepstudy": _growth("sleepstudy", "Subject", "Days", "Reaction"),
    "orthodont": _growth("orthodont", "Subject", "age", "distance", SEX="Sex"),
}
