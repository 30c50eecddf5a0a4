import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hierax.dynamics.linear.divided_differences import exp_difference, exp_integral

ORDERS = [(i, j) for total in (1, 2, 3) for i in range(total + 1) for j in [total - i]]
TIMES = [0.25, 2.02, 9.05, 24.37]


@functools.cache
def _derivatives(i, j):
    """Return the derivative of ka·(e^(-k t) - e^(-ka t))/(ka - k) of order (i, j) in (ka, k)."""

    def amount(ka, k, t):
        return ka * exp_difference(ka, k, t)

    for _ in range(i):
        amount = jax.jacfwd(amount, 0)
    for _ in range(j):
        amount = jax.jacfwd(amount, 1)
    return jax.jit(amount)


def _reference(ka, k, t, i, j):
    """Differentiate ka·∫ e^(-ka s - k (t - s)) ds under the integral, at 30 digits."""
    with mpmath.workdps(30):
        ka, k, t = mpmath.mpf(ka), mpmath.mpf(k), mpmath.mpf(t)

        def moment(m, n):
            # Gauss-Legendre at 30 digits on an entire integrand converges at once.
            return mpmath.quad(
                lambda s: (-s) ** m * (s - t) ** n * mpmath.exp(-ka * s - k * (t - s)), [0, t], maxdegree=5
            )

        return ka * moment(i, j) + (i * moment(i - 1, j) if i else 0)


@pytest.mark.parametrize(
    ("gap", "bar"), [(1e-1, 1e-9), (1e-3, 1e-9), (1e-6, 1e-6), (1e-10, 1e-6), (1e-14, 1e-6), (0.0, 1e-6)]
)
def test_derivatives_of_order_1_to_3_against_30_digits(gap, bar):
    k = 0.13
    for sign in (1, -1) if gap else (1,):
        ka = k * (1 + sign * gap)
        for t in TIMES:
            for i, j in ORDERS:
                expected = _reference(ka, k, t, i, j)
                found = float(_derivatives(i, j)(ka, k, t))
                assert abs(found - expected) <= bar * abs(expected), (ka, t, i, j)


def test_no_nan_anywhere_near_equal_rates():
    ka = 0.3 + jnp.array([0.0, 1e-300, 1e-16, -1e-12, 1e-8, 1e-4])
    hessian = jax.vmap(jax.hessian(lambda rates: rates[0] * exp_difference(rates[0], rates[1], 5.0)))
    assert np.isfinite(hessian(jnp.stack([ka, jnp.full(6, 0.3)], -1))).all()
    at_zero = jax.vmap(jax.hessian(lambda rates: exp_difference(rates[0], rates[1], 0.0)))
    assert np.isfinite(at_zero(jnp.stack([ka, jnp.full(6, 0.3)], -1))).all()


def test_extreme_rates_do_not_overflow():
    assert float(exp_difference(jnp.array(1e4), jnp.array(0.1), jnp.array(24.0))) == pytest.approx(
        np.exp(-2.4) / (1e4 - 0.1), rel=1e-14
    )
    assert float(exp_difference(jnp.array(0.1), jnp.array(1e4), jnp.array(24.0))) == pytest.approx(
        np.exp(-2.4) / (1e4 - 0.1), rel=1e-14
    )


def test_integral_at_zero_rate_is_time():
    assert float(exp_integral(jnp.array(0.0), jnp.array(3.0))) == 3.0
    assert float(exp_integral(jnp.array(0.5), jnp.array(3.0))) == pytest.approx(-np.expm1(-1.5) / 0.5, rel=1e-15)
