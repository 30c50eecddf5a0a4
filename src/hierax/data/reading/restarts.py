"""Subjects whose clock restarts, as where each period of a study has times of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierax.data.reading.columns import code_key

# The items of a reset record that is inserted before an observation.
_RESET = {
    "EVID": 3.0,
    "MDV": 1.0,
    "DV": np.nan,
    "CENS": 0.0,
    "AMT": 0.0,
    "RATE": 0.0,
    "II": 0.0,
    "ADDL": 0.0,
    "SS": 0.0,
}


def reset_at_restarts(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the table with a reset wherever ``column`` changes within a subject.

    A dose there becomes a reset and dose (EVID 4), a record that is neither observed nor a dose becomes the reset, and
    an observation gets a reset in front.
    """
    level = pd.Series(pd.factorize(frame[column].map(code_key))[0], index=frame.index)
    same = frame["_code"].eq(frame["_code"].shift())
    begins = same & level.ne(level.shift())
    evid = frame["EVID"]
    frame = frame.assign(EVID=evid.mask(begins & (evid == 1), 4.0).mask(begins & (evid == 2), 3.0))
    observed = begins & (evid == 0)
    if not observed.any():
        return frame
    resets = frame[observed].assign(**_RESET, _observed=False, _mdv_given=True, _added=True)
    if "LIMIT" in resets.columns:
        resets["LIMIT"] = np.nan
    order = np.concatenate([np.arange(len(frame)) + 0.5, np.flatnonzero(observed)])
    both = pd.concat([frame.assign(_added=False), resets], ignore_index=True)
    return both.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def period_column(frame: pd.DataFrame, earlier: pd.Series) -> str | None:
    """Return a column that seems to count the periods of a study, or None.

    It changes on all rows that ``earlier`` marks, those whose TIME is less than on the row before; unless it is OCC, it
    changes on no others.
    """
    same = frame["_code"].eq(frame["_code"].shift())
    names = [
        name for name in frame.columns if not str(name).startswith("_") and name not in ("ID", "TIME", "DV", "_row")
    ]
    # OCC is tried first, because it is the usual name of such a column.
    for name in sorted(names, key=lambda name: name != "OCC"):
        text = frame[name].astype(object).astype(str)
        changes = same & (text != text.shift())
        if changes[earlier].all() and (name == "OCC" or (changes == earlier).all()):
            return str(name)
    return None
