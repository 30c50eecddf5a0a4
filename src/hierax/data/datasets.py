"""Classical data sets in NONMEM-style columns; see ``data/PROVENANCE.md`` for their sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd


def load(name: str) -> pd.DataFrame:
    """Return a data set as a table that :func:`hierax.read_nonmem` reads.

    Parameters
    ----------
    name : str
        ``theophylline`` (mg, mg/L, h, kg), ``phenobarb`` (mg, mg/L, h, kg), ``quinidine`` (mg, mg/L, h, kg),
        ``remifentanil`` (µg, ng/mL, min, kg), ``indometh`` (mg/L, h), ``orange`` (mm, days), ``loblolly`` (ft, years),
        ``soybean`` (g, days), ``sleepstudy`` (ms, days), ``orthodont`` (mm, years). ``quinidine``,
        ``remifentanil``, ``soybean`` and ``loblolly`` are also functions, whose documentation describes the data
        and shows a plot and a first model.

    Returns
    -------
    pandas.DataFrame
        In NONMEM's columns.

    Raises
    ------
    ValueError
        There is no such data set; the message lists the data sets.

    Examples
    --------
    >>> hx.datasets.load('theophylline')['ID'].nunique()
    12
    """
    if name not in _LOADERS:
        raise ValueError(f"There is no data set {name!r}. Load one of {sorted(_LOADERS)}.")
    return _LOADERS[name]()


def folder() -> Path:
    """Return the folder of the CSV files: a part of the installed package, or ``data`` in a checkout.

    Returns
    -------
    pathlib.Path

    Examples
    --------
    >>> (hx.datasets.folder() / 'sleepstudy.csv').exists()
    True
    """
    installed = Path(__file__).parents[1] / "_datasets"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "data"


def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(folder() / f"{name}.csv")


def _theophylline() -> pd.DataFrame:
    """Return one dose record per subject, at t = 0 and before the sample at t = 0, with AMT = Dose·Wt in mg."""
    raw = _table("theoph")
    samples = pd.DataFrame(
        {"ID": raw["Subject"], "TIME": raw["Time"], "DV": raw["conc"], "AMT": 0.0, "EVID": 0, "WT": raw["Wt"]}
    )
    first = raw.groupby("Subject", sort=False).head(1)
    doses = pd.DataFrame(
        {"ID": first["Subject"], "TIME": 0.0, "DV": float("nan"), "AMT": first["Dose"] * first["Wt"], "EVID": 1}
    ).assign(WT=first["Wt"])
    # The doses are concatenated first, and sorting is stable, so that a dose precedes a sample at the same time.
    return _by_subject(pd.concat([doses, samples]))


def _phenobarb() -> pd.DataFrame:
    """Return doses (EVID 1), concentrations (EVID 0), weight, 5-minute Apgar score and its indicator."""
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


def quinidine() -> pd.DataFrame:
    """Quinidine in hospital patients (Verme et al. 1992): 136 subjects, 361 concentrations, oral doses.

    TIME h, AMT mg, DV mg/L. A dose with an interval is at steady state (SS 1), and is repeated at that interval until
    the next record. AGE years, HT inches, WT kg and GLYCO (α1-acid glycoprotein, mg/100 dL) are numbers; RACE, SMOKE,
    ETHANOL, HEART (failure) and CREAT (creatinine clearance, mL/min) are categories. Several vary within a subject.

    Returns
    -------
    pandas.DataFrame
        In NONMEM's columns, with covariates.

    Examples
    --------
    A first model: ka is fixed, because trough samples do not show the fast absorption; clearance falls with GLYCO.

    >>> import hierax as hx, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> pop = hx.read_nonmem(
    ...     hx.datasets.quinidine(), covariates=["WT", "GLYCO"], categorical=["CREAT"], interpolation="nocb"
    ... )
    >>> figure = hx.plot.data(pop)
    >>> positive = dist.constraints.positive
    >>> def model(pop):
    ...     cl = numpyro.param("cl", 12.0, constraint=positive)
    ...     v = numpyro.param("v", 250.0, constraint=positive)
    ...     glyco = numpyro.param("glyco", -0.3)
    ...     omega = numpyro.param("omega", 0.3 * jnp.ones(2), constraint=positive)
    ...     sigma = numpyro.param("sigma", 0.3, constraint=positive)
    ...     with numpyro.plate("subject", pop.n_subjects, dim=-2):
    ...         eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
    ...         CL = cl * pop.covariates["GLYCO"] ** glyco * jnp.exp(eta[..., 0])  # (subject, time)
    ...         V = numpyro.deterministic("V", v * jnp.exp(eta[..., 1]))
    ...         conc = hx.pk.one_compartment(pop, CL=CL, V=V, ka=0.8)
    ...         hx.observe("dv", dist.LogNormal(jnp.log(conc), sigma), pop)
    >>> fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    """
    raw = _table("quinidine")
    dosed, steady = raw["dose"].notna(), raw["interval"] > 0
    # ADDL repeats a steady-state dose at all times before the subject's next record, but not at that record's time.
    next_time = raw["time"].shift(-1).where(raw["Subject"].eq(raw["Subject"].shift(-1)))
    intervals = pd.Series(np.ceil((next_time - raw["time"]) / raw["interval"]))
    further = intervals.sub(1).clip(lower=0).fillna(0)
    return pd.DataFrame(
        {
            "ID": raw["Subject"],
            "TIME": raw["time"],
            "DV": raw["conc"],
            "AMT": raw["dose"].fillna(0.0),
            "EVID": np.select([dosed, raw["conc"].notna()], [1, 0], 2),
            "II": raw["interval"].where(steady, 0.0),
            "SS": steady.astype(int),
            "ADDL": further.astype(int),
            "AGE": raw["Age"],
            "HT": raw["Height"],
            "WT": raw["Weight"],
            "RACE": raw["Race"],
            "SMOKE": raw["Smoke"],
            "ETHANOL": raw["Ethanol"],
            "HEART": raw["Heart"],
            "CREAT": raw["Creatinine"],
            "GLYCO": raw["glyco"],
        }
    )


def remifentanil() -> pd.DataFrame:
    """Remifentanil by infusion (Minto et al. 1997): 65 subjects, 1992 concentrations.

    TIME min, AMT µg, RATE µg/min, DV ng/mL (= µg/L); AGE years, HT cm, WT kg, BSA m², LBM kg, SEX. Each row of the
    source is a piece of an infusion; one that also has a concentration becomes two records, the sample first.

    Returns
    -------
    pandas.DataFrame
        In NONMEM's columns, with covariates.

    Examples
    --------
    A first model: three compartments, no covariates (Minto's simple model has CL 2.46 L/min and V1 4.98 L).

    >>> import hierax as hx, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> pop = hx.read_nonmem(hx.datasets.remifentanil(), covariates=["AGE", "LBM"])
    >>> figure = hx.plot.data(pop, log=True)
    >>> positive = dist.constraints.positive
    >>> def model(pop):
    ...     theta = numpyro.param("theta", jnp.array([2.5, 5.0, 2.0, 10.0, 0.1, 5.0]), constraint=positive)
    ...     omega = numpyro.param("omega", 0.3 * jnp.ones(6), constraint=positive)
    ...     prop = numpyro.param("prop", 0.2, constraint=positive)
    ...     with numpyro.plate("subject", pop.n_subjects, dim=-2):
    ...         eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
    ...         CL, V1, Q2, V2, Q3, V3 = jnp.moveaxis(theta * jnp.exp(eta), -1, 0)
    ...         conc = hx.pk.three_compartment(pop, CL=CL, V1=V1, Q2=Q2, V2=V2, Q3=Q3, V3=V3)
    ...         hx.observe("dv", dist.Normal(conc, prop * conc), pop)
    >>> table = hx.check(model, pop, show=False)
    """
    raw = _table("remifentanil")
    covariates = {"AGE": "Age", "SEX": "Sex", "HT": "Ht", "WT": "Wt", "BSA": "BSA", "LBM": "LBM"}
    base = pd.DataFrame({"ID": raw["ID"], "TIME": raw["Time"]} | {new: raw[old] for new, old in covariates.items()})
    order = 2 * np.arange(len(raw))
    sample, piece = raw["conc"].notna(), raw["Amt"] > 0
    nothing = {"AMT": 0.0, "RATE": 0.0}
    parts = [
        base[sample].assign(_order=order[sample], DV=raw["conc"], EVID=0, **nothing),
        base[piece].assign(_order=order[piece] + 1, DV=np.nan, EVID=1, AMT=raw["Amt"], RATE=raw["Rate"]),
        base[~sample & ~piece].assign(_order=order[~sample & ~piece], DV=np.nan, EVID=2, **nothing),
    ]
    table = pd.concat(parts).sort_values("_order", kind="stable", ignore_index=True)
    return table[["ID", "TIME", "DV", "AMT", "RATE", "EVID", *covariates]]


def _growth(file: str, subject: str, time: str, response: str, **covariates: str) -> Callable[[], pd.DataFrame]:
    """Return a loader of data without doses, where TIME is the column ``time`` and DV the column ``response``."""

    def load_growth() -> pd.DataFrame:
        raw = _table(file)
        columns = {"ID": raw[subject], "TIME": raw[time].astype(float), "DV": raw[response].astype(float)}
        return _by_subject(pd.DataFrame(columns | {new: raw[old] for new, old in covariates.items()}))

    return load_growth


def soybean() -> pd.DataFrame:
    """Growth of soybeans (Davidian & Giltinan 1995): 48 plots, 412 leaf weights per plant.

    TIME days after planting, DV g; VARIETY (F commercial, P experimental) and YEAR (1988 to 1990) are categories.

    Returns
    -------
    pandas.DataFrame
        ID, TIME, DV, and the variety and year of each plot.

    Examples
    --------
    A first model: logistic growth, power-of-the-mean error.

    >>> import hierax as hx, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> pop = hx.read_nonmem(hx.datasets.soybean(), covariates=["VARIETY"], categorical=["YEAR"])
    >>> figure = hx.plot.data(pop)
    >>> positive = dist.constraints.positive
    >>> def model(pop):
    ...     asym = numpyro.param("asym", 17.0, constraint=positive)
    ...     mid = numpyro.param("mid", 52.0, constraint=positive)
    ...     scale = numpyro.param("scale", 7.5, constraint=positive)
    ...     omega = numpyro.param("omega", jnp.array([0.2, 0.05]), constraint=positive)
    ...     sigma = numpyro.param("sigma", 0.2, constraint=positive)
    ...     with numpyro.plate("subject", pop.n_subjects, dim=-2):
    ...         eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
    ...         top = numpyro.deterministic("ASYM", asym * jnp.exp(eta[..., 0]))
    ...         middle = numpyro.deterministic("MID", mid * jnp.exp(eta[..., 1]))
    ...         weight = top / (1 + jnp.exp(-(pop.times - middle) / scale))
    ...         hx.observe("dv", dist.Normal(weight, sigma * weight**0.95), pop)
    >>> fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    """
    return _growth("soybean", "Plot", "Time", "weight", VARIETY="Variety", YEAR="Year")()


def loblolly() -> pd.DataFrame:
    """Growth of loblolly pines (Kung 1986): 14 seed sources, 84 heights.

    TIME years of age, DV feet.

    Returns
    -------
    pandas.DataFrame
        ID, TIME, DV.

    Examples
    --------
    A first model: asymptotic growth, the asymptote varying between seed sources.

    >>> import hierax as hx, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> pop = hx.read_nonmem(hx.datasets.loblolly())
    >>> figure = hx.plot.data(pop)
    >>> positive = dist.constraints.positive
    >>> def model(pop):
    ...     asym = numpyro.param("asym", 100.0, constraint=positive)
    ...     start = numpyro.param("start", -8.5)
    ...     rate = numpyro.param("rate", 0.04, constraint=positive)
    ...     omega = numpyro.param("omega", 3.0, constraint=positive)
    ...     sigma = numpyro.param("sigma", 0.7, constraint=positive)
    ...     with numpyro.plate("subject", pop.n_subjects, dim=-2):
    ...         eta = numpyro.sample("eta", dist.Normal(0.0, omega))
    ...         top = numpyro.deterministic("ASYM", asym + eta)
    ...         height = top + (start - top) * jnp.exp(-rate * pop.times)
    ...         hx.observe("dv", dist.Normal(height, sigma), pop)
    >>> fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    """
    return _growth("loblolly", "Seed", "age", "height")()


def _by_subject(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with each subject's rows together in time order, subjects in order of first appearance."""
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
    "quinidine": quinidine,
    "remifentanil": remifentanil,
    "soybean": soybean,
    "loblolly": loblolly,
    "indometh": _growth("indometh", "Subject", "time", "conc"),
    "orange": _growth("orange", "Tree", "age", "circumference"),
    "sleepstudy": _growth("sleepstudy", "Subject", "Days", "Reaction"),
    "orthodont": _growth("orthodont", "Subject", "age", "distance", SEX="Sex"),
}
