"""``pk.hill`` and ``pk.emax``: values and derivatives, above all where the concentration is 0."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import hierax as hx


def tensors(function, forward):
    """Return value and first three derivatives in all arguments, of (point, argument)."""
    once = jax.jacfwd if forward else jax.jacrev
    parts = [lambda x: function(*x)]
    for _ in range(3):
        parts.append(once(parts[-1]))
    return jax.jit(jax.vmap(lambda x: [part(x) for part in parts]))


def by_hand(c, emax, ec50, gamma):
    return emax * c**gamma / (ec50**gamma + c**gamma)


@pytest.mark.parametrize("forward", [True, False])
def test_all_derivatives_of_a_hill_curve(forward):
    c, gamma = (part.ravel() for part in np.meshgrid([0.02, 0.7, 1.5, 30.0], [0.4, 1.0, 2.0, 3.3]))
    away = np.stack([c, np.full_like(c, -2.0), np.full_like(c, 1.5), gamma], 1)
    found = tensors(hx.pk.hill, forward)
    for one, expected in zip(found(away), tensors(by_hand, True)(away), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-10, atol=1e-12)
    assert not np.isfinite(tensors(by_hand, True)(away * [0, 1, 1, 1])[1]).all()

    # At 0: emax · (c/ec50)^gamma, and what comes after it, -emax · (c/ec50)^(2 gamma) + emax · (c/ec50)^(3 gamma).
    at = np.array([[0.0, 2.0, 1.5, gamma] for gamma in (0.4, 1.0, 1.5, 2.0, 3.0, 4.0)])
    value, first, second, third = (np.asarray(part) for part in found(at))
    np.testing.assert_array_equal(value, 0.0)
    np.testing.assert_allclose(first[:, 0], [0, 2 / 1.5, 0, 0, 0, 0], rtol=1e-14)
    np.testing.assert_allclose(second[:, 0, 0], [0, -2 * 2 / 1.5**2, 0, 2 * 2 / 1.5**2, 0, 0], rtol=1e-14)
    np.testing.assert_allclose(third[:, 0, 0, 0], [0, 6 * 2 / 1.5**3, 0, 0, 6 * 2 / 1.5**3, 0], rtol=1e-14)
    # Mixed with emax and ec50: those of 2/1.5 and 2 · 2/1.5² in them; all others are 0.
    np.testing.assert_allclose(second[1, 0, :3], [-2 * 2 / 1.5**2, 1 / 1.5, -2 / 1.5**2], rtol=1e-14)
    np.testing.assert_allclose(third[3, 0, 0, :3], [0, 2 / 1.5**2, -2 * 2 * 2 / 1.5**3], rtol=1e-14, atol=1e-14)
    assert not first[:, 1:].any()
    assert not second[:, 1:, 1:].any()
    assert not third[:, 1:, 1:, 1:].any()
    # Below 0 there is no effect and no slope.
    for part in found(at - [1e-9, 0, 0, 0]):
        assert not np.asarray(part).any()

    # Next to 0 the first term is all that counts, however small it is.
    tiny = np.array([[c, 2.0, 1.5, gamma] for c in (1e-300, 1e-20) for gamma in (1.0, 1.7, 2.0, 4.0)])
    x, gamma = tiny[:, 0] / 1.5, tiny[:, 3]
    with np.errstate(over="ignore"):
        slopes = [2.0 * gamma * x ** (gamma - 1) / 1.5, 2.0 * x**gamma * np.log(x)]
    _, first, second, third = found(tiny)
    np.testing.assert_allclose(first[:, 0], slopes[0], rtol=1e-10)
    np.testing.assert_allclose(first[:, 3], slopes[1], rtol=1e-10)
    assert np.isfinite(second).all()
    assert np.isfinite(third).all()


def test_an_emax_curve_is_the_hill_curve_of_slope_one():
    at = np.array([[0.0, 2.0, 1.5], [-1e-9, 2.0, 1.5], [1e-20, -2.0, 1.5], [4.0, 2.0, 1.5], [1e9, 2.0, 1.5]])
    found = tensors(hx.pk.emax, True)(at)
    expected = tensors(lambda c, top, ec50: hx.pk.hill(c, top, ec50, 1.0), True)(at)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-30)


def test_what_is_no_number_stays_none():
    for arguments in (
        (np.nan, 1.0, 1.0, 2.0),
        (2.0, np.nan, 1.0, 2.0),
        (2.0, 1.0, np.nan, 2.0),
        (2.0, 1.0, 1.0, np.nan),
    ):
        assert np.isnan(hx.pk.hill(*arguments))
    assert np.isnan(hx.pk.emax(np.nan, 1.0, 1.0))


def test_a_program_with_a_hill_effect_before_the_first_dose_has_all_derivatives():
    """The response of a subject before its dose: c = 0 whatever the parameters are, and g is estimated."""
    pop = hx.Population.from_subjects(
        [hx.Subject(1, hx.Regimen(100, time=2.0), [1.0, 3.0, 6.0], {"dv": [10.0, 12.0, 13.0]})]
    )

    def objective(x, hill):
        k, ec50, g = x
        c = hx.pk.one_compartment(pop, k=k, V=10.0)
        states = hx.solve_ode(
            pop,
            lambda t, y, p: {"R": p["kin"] * (1 + hill(p["c"](t), 1.0, p["ec50"], p["g"])) - 0.1 * y["R"]},
            {"R": 10.0},
            {"kin": 1.0, "c": hx.pk.one_compartment(pop, k=k, V=10.0, output="forcing"), "ec50": ec50, "g": g},
            doses={},
        )
        fitted = states["R"] + hill(c, 1.0, ec50, g)
        with numpyro.handlers.block():
            return (dist.Normal(fitted, 1.0).log_prob(pop.dv["dv"]) * pop.mask["dv"]).sum()

    x = jnp.array([0.3, 3.0, 0.8])
    hessian = jax.jit(jax.jacfwd(jax.grad(objective)), static_argnums=1)
    found = hessian(x, hx.pk.hill)
    assert np.isfinite(found).all()
    # The same curve with a concentration that is a little more than 0, which is right to what that adds.
    nearly = hessian(x, lambda c, *rest: by_hand(jnp.maximum(c, 1e-14), *rest))
    np.testing.assert_allclose(found, nearly, rtol=1e-6)
    assert not np.isfinite(hessian(x, by_hand)).all()


def test_an_inhibition_leaves_one_minus_a_hill_curve():
    c = jnp.array([0.0, 0.5, 3.0, 1e6])
    left = hx.pk.inhibition(c, 0.8, 2.0, 1.5)
    by_hand = [1 - 0.8 * float(x) ** 1.5 / (2**1.5 + float(x) ** 1.5) for x in c]
    np.testing.assert_allclose(left, by_hand, rtol=1e-12)
    # Nothing of it depends on the steepness before the first dose.
    assert jax.grad(lambda gamma: hx.pk.inhibition(0.0, 0.8, 2.0, gamma))(1.5) == 0
