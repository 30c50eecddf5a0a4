"""The modes of a mammillary disposition: its rates, and the weight of each in every compartment.

After a unit bolus into compartment ``i``, the amount in compartment ``o`` is the sum over the modes of
``weight[o, i] · exp(-rate · t)``; any other input gives the same sum with the response of one compartment of that rate
in place of the exponential. Two rates of a disposition (almost) coincide where exchange with a compartment (almost)
stops while its rate constant equals the elimination's. The weights then grow as the inverse of the gap between the two
rates, and their derivatives as powers of that inverse, although every amount stays smooth. There the amounts, which are
analytic functions of the squared half gap, are extrapolated from somewhat larger gaps. Where all three rates of three
compartments come together, the linear coefficient of their centred characteristic polynomial takes the place of the
squared half gap; the amounts are analytic in it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Two rates count as close, and amounts are extrapolated, where half their gap is below this fraction of their mean.
# With larger gaps, second derivatives lose at most eps/0.03³ = 1e-11 to rounding; with smaller ones, the extrapolation
# has an error of (0.03·rate·t)^10/30240.
NEAR = 0.03
# Weights by which the amounts at 1, 2, ..., 5 steps from a point are extrapolated to the point: those of the polynomial
# through all five. A step is the square of the distance above.
_EXTRAPOLATION_WEIGHTS = (5.0, -10.0, 10.0, -5.0, 1.0)
# Newton steps from a root whose value is exact but which carries no derivatives: after k steps its derivatives are
# exact up to order 2^k - 1.
_NEWTON_STEPS = 3


class Micro(NamedTuple):
    """Rate constants: elimination, and the exchange (out, back) with each peripheral compartment."""

    k: Float[Array, "subject time"]
    exchange: tuple[tuple[Array, Array], ...] = ()


class Modes(NamedTuple):
    """Rates ``(mode, subject, time)``, and weights of the same shape by pair of compartments (out, in)."""

    rate: Float[Array, "mode subject time"]
    weight: dict[tuple[int, int], Float[Array, "mode subject time"]]


def sum_of_modes(micro: Micro, amounts: Callable[[Modes], Any]) -> Any:
    """Return ``amounts(modes)``, a pytree that is linear in the weights; smooth also where two rates coincide."""
    if not micro.exchange:
        one = jnp.ones_like(micro.k)[None]
        return amounts(Modes(micro.k[None], {(0, 0): one}))
    near, step = _closeness(micro)
    some = near.any()

    def member(total: Any, point: tuple[Array, Array]) -> tuple[Any, None]:
        number, coefficient = point
        share = jnp.where(near, coefficient, jnp.where(number == 1, 1.0, 0.0))
        shift = jnp.where(near, number * step, 0.0)

        def compute() -> Any:
            modes = _modes(micro, shift)
            return amounts(Modes(modes.rate, {key: share * value for key, value in modes.weight.items()}))

        # The points after the first are needed only if some subject's rates are close.
        part = jax.lax.cond(some | (number == 1), compute, lambda: jax.tree.map(jnp.zeros_like, total))
        return jax.tree.map(jnp.add, total, part), None

    shapes = jax.eval_shape(lambda: amounts(_modes(micro, jnp.zeros_like(step))))
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    points = (jnp.arange(1.0, len(_EXTRAPOLATION_WEIGHTS) + 1), jnp.array(_EXTRAPOLATION_WEIGHTS))
    return jax.lax.scan(member, start, points)[0]


def _closeness(micro: Micro) -> tuple[Array, Array]:
    """Return which subjects have rates so close that formulas cancel, and the step of the extrapolation used there.

    The closed form divides by differences of rates. Where these are nearly 0, it is computed at several points away
    from the true rates, at multiples of the step, and extrapolated back.
    """
    frozen = jax.tree.map(jax.lax.stop_gradient, micro)
    # Two rates may be 0, and so may their mean, if nothing returns from the peripheral compartments. The total of the
    # rate constants keeps the step positive.
    total = frozen.k + sum(out + back for out, back in frozen.exchange)
    if len(micro.exchange) == 1:
        middle, square, _, _ = _pair(frozen)
        step = (NEAR * jnp.maximum(middle, 1e-6 * total)) ** 2
        return square < step, step
    triple = _is_triple(frozen)
    middle, square, _, _ = _pair(_apart(frozen, triple))
    step = (NEAR * jnp.maximum(jnp.where(triple, total / 3.0, middle), 1e-6 * total)) ** 2
    return triple | (square < step), step


def _cubic(micro: Micro) -> tuple[Array, Array, Array]:
    """Return the coefficients of the characteristic polynomial z³ - total z² + squares z - product."""
    (k12, k21), (k13, k31) = micro.exchange
    total = micro.k + k12 + k13 + k21 + k31
    squares = micro.k * (k21 + k31) + k12 * k31 + k13 * k21 + k21 * k31
    return total, squares, micro.k * k21 * k31


def _centred(micro: Micro) -> tuple[Array, Array, Array]:
    """Return the mean of the three rates, and the linear and constant coefficient of the polynomial around it."""
    total, squares, product = _cubic(micro)
    centre = total / 3.0
    return centre, squares - total * centre, ((centre - total) * centre + squares) * centre - product


def _is_triple(micro: Micro) -> Array:
    """Return where all three rates are close."""
    centre, linear, constant = jax.lax.stop_gradient(_centred(micro))
    near = NEAR * centre
    return (-linear < near**2) & (jnp.abs(constant) < 0.1 * near**3)


def _apart(micro: Micro, triple: Array) -> Micro:
    """Return the rate constants; where all three rates are close, others whose rates are far apart.

    The results for a pair of close rates are not used there, but they must be finite, or derivatives in reverse mode
    would be NaN.
    """
    safe = Micro(jnp.ones(()), ((jnp.array(0.5), jnp.array(0.3)), (jnp.array(0.2), jnp.array(0.1))))
    return jax.tree.map(lambda value, other: jnp.where(triple, other, value), micro, safe)


def _pair(micro: Micro) -> tuple[Array, Array, Array, Array | None]:
    """Return mean and squared half gap of the two closest rates, their product, and the third rate if there is one."""
    if len(micro.exchange) == 1:
        ((k12, k21),) = micro.exchange
        half = 0.5 * (micro.k + k12 - k21)
        return 0.5 * (micro.k + k12 + k21), half * half + k12 * k21, micro.k * k21, None
    total, squares, product = _cubic(micro)
    single, largest = _single_root(total, squares, product)
    for _ in range(_NEWTON_STEPS):
        value = ((single - total) * single + squares) * single - product
        single = single - value / ((3.0 * single - 2.0 * total) * single + squares)
    # Product and sum of the other two rates, by those relations of roots and coefficients in which no digits cancel.
    safe = jnp.where(largest, single, 1.0)
    pair_product = jnp.where(largest, product / safe, squares - single * (total - single))
    middle = 0.5 * jnp.where(largest, (squares - pair_product) / safe, total - single)
    return middle, middle * middle - pair_product, pair_product, single


def _single_root(total: Array, squares: Array, product: Array) -> tuple[Array, Array]:
    """Return the root of z³ - total z² + squares z - product furthest from the others, and whether it is the largest.

    The roots of a mammillary system are real and not negative, so that the trigonometric formula gives all three.
    """
    total, squares, product = jax.lax.stop_gradient((total, squares, product))
    centre = total / 3.0
    spread = jnp.sqrt(jnp.maximum(centre * centre - squares / 3.0, 0.0))
    cubic = ((centre - total) * centre + squares) * centre - product
    scale = jnp.where(spread > 0, 2.0 * spread**3, 1.0)
    angle = jnp.arccos(jnp.clip(-cubic / scale, -1.0, 1.0)) / 3.0
    first, second, third = (centre + 2.0 * spread * jnp.cos(angle - 2.0 * jnp.pi * i / 3.0) for i in (0, 1, 2))
    high, low = jnp.maximum(first, jnp.maximum(second, third)), jnp.minimum(first, jnp.minimum(second, third))
    # A root that is far smaller than the others is computed from the product of all: the cosines lose its digits.
    mid = jnp.clip(total - high - low, 0.0, high)
    low = jnp.where(low > 1e-3 * mid, low, product / (high * jnp.maximum(mid, 1e-300)))
    # The tolerance is for two roots of 0, which must count as the close pair however they are rounded.
    largest = (high - mid) * (mid + low) >= (mid - low) * (high + mid) - 1e-12 * high * high
    root = jnp.where(largest, high, low)
    for _ in range(2):
        value = ((root - total) * root + squares) * root - product
        slope = (3.0 * root - 2.0 * total) * root + squares
        root = root - value / jnp.where(slope == 0, 1.0, slope)
    return root, largest


def _modes(micro: Micro, shift: Array) -> Modes:
    """Return the modes; where rates are close, they are moved apart by ``shift``."""
    if len(micro.exchange) == 1:
        upper, lower, half, _ = _shifted_pair(micro, shift)
        return _two_modes(micro, jnp.stack([upper, lower]), half, shift)
    triple = _is_triple(micro)
    far = _apart(micro, triple)
    upper, lower, half, single = _shifted_pair(far, jnp.where(triple, 0.0, shift))
    pair = jnp.stack([upper, lower, single])
    gaps = jnp.stack(
        [-2.0 * half * (single - upper), 2.0 * half * (single - lower), (upper - single) * (lower - single)]
    )
    three = _shifted_triple(micro, jnp.where(triple, shift, 0.0), triple)
    spread = jnp.stack([(three[j] - three[i]) * (three[k] - three[i]) for i, j, k in ((0, 1, 2), (1, 0, 2), (2, 0, 1))])
    return _three_modes(micro, jnp.where(triple, three, pair), jnp.where(triple, spread, gaps))


def _shifted_pair(micro: Micro, shift: Array) -> tuple[Array, Array, Array, Array]:
    """Return the two closest rates, their squared half gap moved by ``shift``; that half gap; and the third rate."""
    middle, square, product, single = _pair(micro)
    half = jnp.sqrt(square + shift)
    upper = middle + half
    return upper, (product - shift) / upper, half, middle if single is None else jnp.broadcast_to(single, upper.shape)


def _shifted_triple(micro: Micro, shift: Array, triple: Array) -> Array:
    """Return three rates after the linear coefficient of their centred polynomial was moved by ``shift``."""
    centre, linear, constant = _centred(micro)
    linear = jnp.where(triple, linear - shift, -1.0)
    constant = jnp.where(triple, constant, 0.0)
    frozen, rest = jax.lax.stop_gradient((linear, constant))
    scale = jnp.sqrt(-frozen / 3.0)
    angle = jnp.arccos(jnp.clip(-rest / (2.0 * scale**3), -1.0, 1.0)) / 3.0
    roots = jnp.stack([2.0 * scale * jnp.cos(angle - 2.0 * jnp.pi * i / 3.0) for i in (0, 1, 2)])
    for _ in range(_NEWTON_STEPS):
        roots = roots - ((roots * roots + linear) * roots + constant) / (3.0 * roots * roots + linear)
    return centre + roots


def _two_modes(micro: Micro, rate: Array, half: Array, shift: Array) -> Modes:
    ((k12, k21),) = micro.exchange
    lean = 0.5 * (micro.k + k12 - k21)
    # half² - lean² = k12 k21 + shift. The smaller of half ± lean is computed from this product of the two, so that no
    # digits cancel.
    larger = half + jnp.abs(lean)
    smaller = (k12 * k21 + shift) / larger
    plus, minus = jnp.where(lean >= 0, larger, smaller), jnp.where(lean >= 0, smaller, larger)
    gap = 2.0 * half
    sign = jnp.stack([-jnp.ones_like(gap), jnp.ones_like(gap)]) / gap
    return Modes(
        rate,
        {
            (0, 0): jnp.stack([plus, minus]) / gap,
            (1, 0): k12 * sign,
            (0, 1): k21 * sign,
            (1, 1): jnp.stack([minus, plus]) / gap,
        },
    )


def _three_modes(micro: Micro, rate: Array, gaps: Array) -> Modes:
    """Return the modes of these rates; ``gaps`` holds for each rate the product of its distances to the others."""
    (k12, k21), (k13, k31) = micro.exchange
    leave = micro.k + k12 + k13 - rate
    from2, from3 = k21 - rate, k31 - rate
    numerator = {
        (0, 0): from2 * from3,
        (1, 0): k12 * from3,
        (2, 0): k13 * from2,
        (0, 1): k21 * from3,
        (0, 2): k31 * from2,
        (1, 1): leave * from3 - k13 * k31,
        (2, 2): leave * from2 - k12 * k21,
        (2, 1): jnp.broadcast_to(k21 * k13, rate.shape),
        (1, 2): jnp.broadcast_to(k31 * k12, rate.shape),
    }
    return Modes(rate, {key: value / gaps for key, value in numerator.items()})
