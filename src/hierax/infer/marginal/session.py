"""One fit in progress: a program, an estimator and a population, with the compiled functions between them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from hierax.data.population import Population
from hierax.errors import ModelError
from hierax.infer.marginal import objective
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.grids import SLACK, Grids, grids_of
from hierax.infer.marginal.objective import Evaluated, compiled_objective, compiled_value
from hierax.infer.result import Result
from hierax.infer.search.optimise import minimise
from hierax.infer.search.options import Starting
from hierax.infer.search.outcome import Enough, Search
from hierax.infer.search.recorder import Recorder
from hierax.infer.search.scaling import Point, Ranges
from hierax.program.density import Program
from hierax.program.digest import program_digest
from hierax.program.identity import fingerprint
from hierax.program.parameters import Layout, layout
from hierax.program.priors import OWN, penalty
from hierax.program.read import cached, read_program

if TYPE_CHECKING:
    from hierax.infer.marginal.held_out import HeldOut

# How often, at most, the first evaluation places grids anew at the modes that it finds.
_SETTLING = 3
# From this many subjects on, grids get no more steps than the modes need: one evaluation then takes longer than
# compiling the objective again for fewer steps.
_MANY = 200

# A start is taken for absurd if its −log likelihood is higher than at the end by more than this for each observation,
# as it is where predictions miss the data by four and a half standard deviations on average.
_ABSURD = 10.0

Report = Callable[[dict[str, float]], None]


def placed(flat: np.ndarray, free: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the flat vector with its free entries replaced by ``x``."""
    at = flat.copy()
    at[free] = x
    return at


@dataclasses.dataclass
class Session:
    """The objective of a fit as a function of the flat vector.

    Attributes
    ----------
    priors : mapping
        The priors that count, as a penalty.
    evaluations, compile_seconds : int, float
        How often the objective was evaluated, and how long its first evaluation took.
    watcher : HeldOut, optional
        Evaluates held-out subjects at every accepted point of a search, and ends the search.
    """

    program: Program
    estimator: Estimator
    pop: Population
    layout: Layout
    priors: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluations: int = 0
    compile_seconds: float = 0.0
    # A default factory leaves no attribute on the class. A session that was unpickled therefore makes its grids anew
    # when they are asked for (see `__getattr__`).
    grids: Grids | None = dataclasses.field(default_factory=lambda: None)
    recorder: Recorder | None = None
    watcher: HeldOut | None = None
    # The point with the lowest objective so far, and the evaluation there, for a fit that is interrupted.
    best: tuple[np.ndarray, Evaluated] | None = None

    def __post_init__(self) -> None:
        self.grids = grids_of(self.program)
        self.estimator.check(self.program, self.pop)
        self.forward = self.layout.size <= objective.FORWARD_PARAMETERS
        self._prior_key = fingerprint(dict(self.priors)) if self.priors else ""

    # -- pickling ----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Return the model, the data and the options; the program is read from the model again when it is needed."""
        if "_saved" in vars(self):
            return dict(vars(self))
        saved = (self.program.model, self.program.plate, program_digest(self.program, self.pop))
        kept = ("estimator", "pop", "priors", "evaluations", "compile_seconds")
        return {"_saved": saved, **{name: getattr(self, name) for name in kept}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        own = {name: OWN if isinstance(prior, str) else prior for name, prior in state["priors"].items()}
        vars(self).update({**state, "priors": own})

    def __getattr__(self, name: str) -> Any:
        """Read the program of an unpickled session again, with all that follows from it, when it is first needed."""
        if "_saved" not in vars(self) or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        model, plate, digest = vars(self).pop("_saved")
        try:
            self.program = read_program(model, self.pop, plate, checked=False)
            if program_digest(self.program, self.pop) != digest:
                raise ModelError(
                    "The model is not the one that was fitted: what it reads (a global, a module) is different in this "
                    "process. Restore it, or fit again."
                )
        except BaseException:
            vars(self)["_saved"] = (model, plate, digest)
            raise
        self.layout = layout(self.program)
        self.__post_init__()
        return getattr(self, name)

    @property
    def _objective(self) -> Any:
        return self.compiled

    @property
    def compiled(self) -> Any:
        """The compiled objective with its gradient, of (flat, warm start, population).

        The program keeps it, and drops it if it is not used for long.
        """
        return compiled_objective(self.program, self.estimator, self.layout.unravel, self.forward)

    def cold(self) -> np.ndarray:
        """Return NaN, (subject, coordinate), in place of a warm start: modes are sought from the reference point."""
        return np.full((self.pop.n_subjects, len(self.program.effect_names)), np.nan)

    def place(self, flat: Any, eta: Any = None) -> None:
        """Place the grids of the program's ODEs for these values."""
        assert self.grids is not None
        self.pop = self.grids.place(self.pop, self.layout.params(flat), self.cold() if eta is None else eta)

    def _settle(self, function: Any, flat: Any, eta: Any) -> Evaluated:
        """Evaluate; if no ODE grids are placed yet, place them first, and anew at the modes that are found on them."""

        def at(eta: Any) -> Evaluated:
            return function(jnp.asarray(flat, float), jnp.asarray(eta), self.pop)

        start = self.cold() if eta is None else eta
        if self.grids is None or self.grids.placings:
            return at(start)
        self.place(flat, start)
        out = at(start)
        if not self.estimator.has_modes:
            return out
        modes = _finite(out.eta)
        for _ in range(_SETTLING):
            if not self.watch(flat, modes):
                break
            out = at(modes)
            modes = _finite(out.eta)
        if self.pop.n_subjects >= _MANY:
            # With so many subjects fewer steps are worth another compilation.
            self.grids.resize(self.pop, self.layout.params(flat), modes)
            self.place(flat, modes)
            out = at(modes)
        return out

    def watch(self, flat: np.ndarray, eta: Any) -> bool:
        """Place the ODE grids anew if their error has grown too large; return whether they were placed."""
        if self.grids is None:
            return False
        params = self.layout.params(flat)
        if self.grids.look(self.pop, params, [eta]) <= SLACK:
            return False
        self.place(flat, eta)
        if self.grids.look(self.pop, params, [eta]) > 1:
            self.grids.tighten()
            self.place(flat, eta)
        return True

    def confirm(self, flat: np.ndarray, out: Evaluated) -> bool:
        """Return whether the error of the ODE grids is small enough; place finer grids where it is not.

        The error is computed at the modes and two posterior SDs around them.
        """
        if self.grids is None or self.look_around(flat, out) <= 1:
            return True
        self.grids.tighten()
        self.place(flat, out.eta)
        return False

    def look_around(self, flat: np.ndarray, out: Evaluated) -> float:
        """Return the largest error of the ODE grids in units of their tolerance, at the modes and around them."""
        assert self.grids is not None
        eta, spread = np.asarray(out.eta), _spread(np.asarray(out.hessian))
        around = [eta] + [eta + side * 2 * spread * unit for unit in np.eye(eta.shape[1]) for side in (-1, 1)]
        return self.grids.look(self.pop, self.layout.params(flat), around)

    def evaluate(self, flat: Any, eta: Any = None) -> Evaluated:
        """Return objective, gradient and modes at a point."""
        start = time.perf_counter()
        out = jax.block_until_ready(self._settle(self.compiled, flat, eta))
        if not self.forward and np.isfinite(out.value).all() and not np.isfinite(out.gradient).all():
            # Reverse mode multiplies the bad derivatives of masked predictions (log of 0 at a dose record) by zero and
            # keeps the NaN. Forward passes drop them: slower with many parameters, but right.
            self.forward = True
            return self.evaluate(flat, eta)
        if not self.evaluations:
            self.compile_seconds = time.perf_counter() - start
        self.evaluations += 1
        return out

    def _remember(self, flat: np.ndarray, out: Evaluated, total: float) -> None:
        if np.isfinite(total) and (self.best is None or total <= self._lowest):
            self.best, self._lowest = (flat.copy(), out), total

    def value(self, flat: Any, eta: Any = None) -> Evaluated:
        """Return objective and modes, without the gradient."""
        return self._settle(compiled_value(self.program, self.estimator, self.layout.unravel), flat, eta)

    def penalty(self, flat: Any) -> tuple[float, np.ndarray]:
        """Return −log prior of the parameters whose priors count, and its gradient."""
        if not self.priors:
            return 0.0, np.zeros(self.layout.size)
        value, gradient = _compiled_penalty(self.program, self.layout, self.priors, self._prior_key)(
            jnp.asarray(flat, float), self.pop
        )
        return float(value), np.asarray(gradient)

    def total(self, flat: np.ndarray, out: Evaluated) -> float:
        """Return the sum of −log likelihood at ``flat`` and −log density of the priors that count."""
        return float(np.asarray(out.value).sum()) + self.penalty(flat)[0]

    def point(self, flat: np.ndarray, free: np.ndarray, eta: Any) -> Point:
        """Return the objective as the optimiser sees it."""
        out = self.evaluate(flat, eta)
        extra, slope = self.penalty(flat)
        scores = None if out.scores is None else np.asarray(out.scores)[free]
        value = float(np.asarray(out.value).sum()) + extra
        self._remember(np.asarray(flat), out, value)
        return Point(value, (np.asarray(out.gradient) + slope)[free], scores, out.eta, extra)

    def search(
        self, flat: np.ndarray, free: np.ndarray, report: Report, eta: Any = None, *, once: bool = False
    ) -> Search:
        """Minimise over the free entries from ``flat``; the modes travel along as the warm start.

        ``once`` is for searches that begin where another has ended: they neither leave their start nor start again.
        """

        def place(x: np.ndarray) -> np.ndarray:
            return placed(flat, free, x)

        def evaluate(x: np.ndarray, eta: Any) -> Point:
            at = place(x)
            known = self.recorder
            return self.point(at, free, eta) if known is None else known.point(at, lambda: self.point(at, free, eta))

        def refresh(x: np.ndarray, eta: Any) -> Any:
            return self.better_modes(place(x), eta)

        def watch(x: np.ndarray, eta: Any) -> bool:
            if self.watcher is not None:
                self.watcher.look(place(x))
                if self.watcher.enough:
                    raise Enough(self.watcher.WHY)
            return self.watch(place(x), eta)

        if self.watcher is not None:
            self.watcher.begin()
        places = self.layout
        kinds = (places.bounded(), places.matrices(), places.limits(), places.joint())
        ranges = Ranges(*(kind[free] for kind in kinds))
        names = [name for name, one in zip(self.layout.names(), free, strict=True) if one]
        # Where an ODE solver has failed at the start, the search stays there, so that a message can name the subject,
        # the time and a remedy. With held-out subjects there is one search only, which they stop.
        stay, once = once or bool(self.program.sites.odes), once or self.watcher is not None
        far = _ABSURD * self.pop.n_observations
        starting = Starting(once, stay, far, lambda: places.start(None)[free])
        return minimise(
            evaluate, flat[free], eta, self.estimator.optimiser, report, ranges, refresh, watch, names, starting
        )

    def better_modes(self, flat: np.ndarray, eta: Any) -> Any:
        """Seek all modes anew; return ``eta`` with the modes that are better, or None if no mode is better.

        A subject's mode that was followed from point to point may have been overtaken by another one, or may be
        about to vanish in a fold, where the objective has a cliff.
        """
        if not self.estimator.has_modes or eta is None or not np.size(eta):
            return None
        # The objective is evaluated with its gradient, because that function is compiled already.
        known, fresh = self.evaluate(flat, eta), self.evaluate(flat)
        slack = 1e-6 * (1 + np.abs(np.asarray(known.joint)))
        better = np.asarray(fresh.joint) < np.asarray(known.joint) - slack
        return np.where(better[:, None], np.asarray(fresh.eta), np.asarray(known.eta)) if better.any() else None


def _compiled_penalty(program: Program, places: Layout, priors: Mapping[str, Any], key: str) -> Any:
    """Return the compiled penalty and its gradient; priors of the same values share it."""

    def value(flat: Any, pop: Population) -> Any:
        return penalty(places, priors, flat, pop)

    return cached(program, ("penalty", key), lambda: jax.jit(jax.value_and_grad(value)))


def session_of(program: Program, pop: Population, estimator: Estimator) -> Session:
    """Return the objective of a program for another population, without checking the program again."""
    other = read_program(program.model, pop, program.plate, checked=False)
    return Session(other, estimator, pop, layout(other))


def _finite(eta: Any) -> np.ndarray:
    """Return modes with NaN, which stands for no warm start, in place of infinite values."""
    return np.where(np.isfinite(eta), eta, np.nan)


def _spread(hessian: np.ndarray) -> np.ndarray:
    """Return the posterior SD of every coordinate by the Hessian at the mode, 0 where it has none."""
    # ODE grids are judged within these SDs around the mode, so that 0 means at the mode alone.
    diagonal = np.einsum("nkk->nk", np.linalg.pinv(np.nan_to_num(hessian), hermitian=True))
    return np.sqrt(np.clip(diagonal, 0.0, None))


def subject_results(codes: Any) -> list[Result]:
    """Return each subject's result from its code."""
    return [Result(int(code)) for code in np.asarray(codes)]
