"""The design of the classical timing: 120 subjects, 58 rows each, oral doses once a day, proportional error."""

import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import hierax as hx


@pytest.fixture(scope="module")
def data():
    design = zoo.oral_design(120)
    truth = {"cl": 4.0, "v": 70.0, "ka": 1.0, "omega": 0.3 * jnp.ones(3), "sigma": 0.2}
    return design.with_dv(dv=hx.simulate(zoo.oral, design, params=truth, seed=1)["dv"].values[0])


def test_foce_recovers_what_was_simulated(data):
    assert data.record_mask.sum(1).tolist() == [58] * 120
    assert int(data.events.mask.sum()) == 120 * 12
    fit = hx.fit(zoo.oral, data, hx.FOCE(), progress=False)
    assert fit.result is hx.Result.converged
    se = fit.covariance().se
    for name, true in {"cl": 4.0, "v": 70.0, "ka": 1.0, "sigma": 0.2}.items():
        assert abs(float(fit.params[name]) - true) < 4 * float(se[name]), name
    np.testing.assert_array_less(np.abs(fit.params["omega"] - 0.3), 4 * np.array([se[f"omega[{i}]"] for i in range(3)]))
