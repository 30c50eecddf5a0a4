"""Outliers among gradients: cut, forgotten, and of no consequence for Adam."""

import jax.numpy as jnp
import numpy as np
import optax

from hierax.infer.clipping import cut_outliers


def after(scaler, lengths):
    """Where Adam's steps of 1 lead whose gradients have these lengths, in opposite directions by turns."""
    state, x = scaler.init({"x": jnp.zeros(3)}), np.zeros(3)
    for number, length in enumerate(lengths):
        gradient = {"x": (-1.0) ** number * length * jnp.ones(3)}
        updates, state = scaler.update(gradient, state)
        x = x + np.asarray(updates["x"])
    return x


def test_usual_gradients_are_left_alone():
    rng = np.random.default_rng(0)
    cut, state = cut_outliers(), cut_outliers().init({})
    for length in rng.uniform(0.5, 2.0, 50):
        gradient = {"a": length * jnp.ones(2), "b": jnp.array(-length)}
        found, state = cut.update(gradient, state)
        np.testing.assert_array_equal(found["a"], gradient["a"])
        np.testing.assert_array_equal(found["b"], gradient["b"])


def test_an_outlier_is_cut_to_five_times_the_usual_length():
    cut = cut_outliers()
    state = cut.init({})
    for _ in range(10):
        _, state = cut.update({"a": jnp.array([3.0, 4.0])}, state)
    found, _ = cut.update({"a": jnp.array([3e6, 4e6])}, state)
    np.testing.assert_allclose(found["a"], [15.0, 20.0])


def test_an_outlier_at_the_start_is_forgotten():
    cut = cut_outliers()
    _, state = cut.update({"a": jnp.array([1e9])}, cut.init({}))
    for _ in range(600):
        _, state = cut.update({"a": jnp.array([1.0])}, state)
    assert float(state.length) < 2.0


def test_adam_moves_less_by_an_outlier():
    """Of a million: 15.6 steps in its direction without a cut; of five, what is left, 5.6."""
    lengths = [1.0] * 200 + [1e6] + [1.0] * 100
    plain = after(optax.scale_by_adam(), lengths)
    cut = after(optax.chain(cut_outliers(), optax.scale_by_adam()), lengths)
    assert np.abs(plain).min() > 2.5 * np.abs(cut).max()
