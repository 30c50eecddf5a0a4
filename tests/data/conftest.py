import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def infusion_times():
    """One subject with one dose of 100 at 0, and observations at 1, 5 and 8; columns take the place of these."""

    def build(**columns):
        base = {"ID": [1] * 4, "TIME": [0.0, 1, 5, 8], "DV": [np.nan, 1, 2, 3], "AMT": [100.0, 0, 0, 0]}
        return pd.DataFrame({**base, **columns})

    return build
