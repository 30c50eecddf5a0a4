"""Tolerances by kind, each with its reason; and an interruption at a known place."""

import hierax as hx
from hierax.estimate import prepare
from hierax.infer.run.checkpoint import Checkpoint

# Two float64 computations of one number by different formulas.
EXACT = 1e-10
# Exact gradients against fourth-order differences with steps near eps^(1/5): truncation and roundoff both about
# 1e-11 of the gradient, modes converged to 1e-10 included.
GRADIENT = 1e-6


def central_difference(function, x, index, step):
    """Fourth-order central difference of a scalar function along one entry."""

    def at(shift):
        moved = x.copy()
        moved[index] += shift * step
        return function(moved)

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)


def interrupt_checkpoint(patch, after):
    """Press Ctrl-C when so many states have been offered to a checkpoint, once more."""
    count = iter(range(after))

    def interrupting(self, state):
        if next(count, None) is None:
            raise KeyboardInterrupt

    patch.setattr(Checkpoint, "offer", interrupting)


def prepared(model, pop, seed=0):
    """Return the job of a fit with every option at its default."""
    return prepare(model, pop, hx.Laplace(), seed=seed)
