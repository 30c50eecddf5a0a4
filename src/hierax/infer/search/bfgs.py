"""optimistix's BFGS, one step at a time, for objectives that are evaluated elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

# After this many halvings a line search is no longer limited by the length of its step but by noise in the objective.
HALVINGS = 30


class AskTell:
    """optimistix's BFGS, one step at a time: it asks for a point, and is told value and gradient there.

    The model is evaluated outside, by the one compiled function that everything else uses too; the code that is
    compiled here does not depend on the model.
    """

    def __init__(self, x: np.ndarray):
        import equinox
        import jax
        import jax.numpy as jnp
        import optimistix

        self.solver = optimistix.BFGS(rtol=1e-8, atol=1e-8)
        self.step = equinox.filter_jit(_bfgs_step)
        self.x = jnp.asarray(x)
        self.accepted = 0
        scalar = jax.ShapeDtypeStruct((), self.x.dtype)
        self.state = self.solver.init(_told, self.x, None, {}, scalar, None, frozenset())

    def ask(self) -> np.ndarray:
        """Return the point to evaluate next."""
        return np.asarray(self.state.y_eval)

    def ask_within(self, length: Callable[[np.ndarray], float], longest: float) -> np.ndarray:
        """Return the point to evaluate next, after halving the step until its ``length`` is at most ``longest``."""
        for _ in range(HALVINGS):
            if length(self.ask()) <= longest:
                break
            self.halve(1)
        return self.ask()

    def tell(self, value: float, gradient: np.ndarray) -> bool:
        """Take value and gradient at the point that was asked for; return whether the point was accepted."""
        import jax.numpy as jnp

        before = self.accepted
        told = (jnp.asarray(value, self.x.dtype), jnp.asarray(gradient, self.x.dtype))
        self.x, self.state = self.step(self.solver, self.x, told, self.state)
        self.accepted = int(self.state.num_accepted_steps)
        return self.accepted > before

    def halve(self, times: int) -> None:
        """Halve the step to the next point ``times`` times."""
        for _ in range(times):
            self.tell(np.inf, np.zeros(self.x.shape))

    def promised(self) -> float:
        """Return by how much the step to the next point would decrease the objective if it were linear."""
        return -float(self.state.f_info.grad @ (self.state.y_eval - self.x))

    def decrement(self) -> float:
        """Return gᵀBg at the accepted point, twice the decrease to expect; B is the inverse Hessian by BFGS."""
        info = self.state.f_info
        return float(info.grad @ info.hessian_inv.mv(info.grad))


def _told(y: Any, told: Any) -> Any:
    """Return the told value, written so that its derivative with respect to ``y`` is the told gradient."""
    import jax
    import jax.numpy as jnp

    value, gradient = told
    return value + jnp.vdot(gradient, y - jax.lax.stop_gradient(y)), None


def _bfgs_step(solver: Any, x: Any, told: Any, state: Any) -> Any:
    x, state, _ = solver.step(_told, x, told, {}, state, frozenset())
    return x, state
