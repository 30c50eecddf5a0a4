"""NUTS on the whole program, or on its marginal likelihood; MAP estimates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.arguments import whole
from hierax.data.population import Population
from hierax.infer.marginal.estimator import Anchor, Estimator, ModeEstimator, Params
from hierax.infer.marginal.laplace import FOCE, Laplace
from hierax.infer.marginal.modes import Newton
from hierax.infer.method import Commands
from hierax.infer.procedure import Procedure
from hierax.infer.search.options import QuasiNewton
from hierax.program.density import Program


@dataclasses.dataclass(frozen=True)
class _Sampler(Procedure):
    warmup: int = 1000
    draws: int = 1000
    chains: int = 4
    target_accept: float = 0.8
    max_tree_depth: int = 10
    chain_method: Literal["vectorized", "sequential"] = "vectorized"
    objective: Estimator = Laplace()
    bayesian: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if min(self.warmup, self.draws, self.chains) < 1:
            raise ValueError(f"{type(self).__name__} needs warmup, draws and chains of 1 or more; 4 chains are usual.")
        whole("max_tree_depth", self.max_tree_depth, 1)
        if not 0 < self.target_accept < 1:
            raise ValueError(f"target_accept={self.target_accept} is no rate. Use 0.8, or 0.95 where it diverges.")

    @property
    def citation(self) -> str:
        """Where it is described."""
        return "Hoffman & Gelman (2014), J Mach Learn Res 15:1593; NumPyro, Phan, Pradhan & Jankowiak (2019)"


@dataclasses.dataclass(frozen=True)
class NUTS(_Sampler):
    """The No-U-Turn sampler of NumPyro on population parameters and random effects together.

    All free population parameters need priors, in the program or by ``fit(priors=)``; ``param`` sites are lifted.

    Parameters
    ----------
    warmup, draws, chains : int
        Iterations of each chain before and after its adaptation ends, and the number of chains.
    target_accept, max_tree_depth
        As in NumPyro; a higher ``target_accept`` takes shorter steps.
    chain_method : {"vectorized", "sequential"}
        Whether chains run side by side, or one after the other (where one takes far longer steps than the others).
    objective : Estimator
        What EBEs and residuals at the posterior mean are by.
    centring : {"auto", True, False}
        Whether random effects are sampled centred (φ = η + Aθ) or as standard normals; "auto" chooses by how much
        the data say of each.

    Examples
    --------
    >>> hx.NUTS(warmup=500, draws=500).label
    'NUTS (4 chains of 500 draws)'
    """

    centring: Literal["auto"] | bool = "auto"
    commands: ClassVar[Commands] = {"nuts": {}}
    references: ClassVar[tuple[str, ...]] = ("hoffman2014",)

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return f"NUTS ({self.chains} chains of {self.draws} draws)"


@dataclasses.dataclass(frozen=True)
class MarginalNUTS(_Sampler):
    """The No-U-Turn sampler on population parameters alone: random effects are integrated out inside the density.

    Parameters
    ----------
    objective : FOCE, Laplace or AGQ
        The approximation that integrates them out. The posterior is that of the approximation: AGQ(5) is close to the
        exact one, FOCE and Laplace are as far from it as their likelihoods are.
    warmup, draws, chains, target_accept, max_tree_depth, chain_method
        As for :class:`NUTS`.

    Examples
    --------
    >>> hx.MarginalNUTS(chains=2).label
    'NUTS on the marginal likelihood (2 chains of 1000 draws)'
    """

    objective: Estimator = FOCE()
    commands: ClassVar[Commands] = {"marginal-nuts": {}}
    references: ClassVar[tuple[str, ...]] = ("hoffman2014",)

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return f"NUTS on the marginal likelihood ({self.chains} chains of {self.draws} draws)"

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say why this algorithm cannot treat a program; empty where it can."""
        return self.objective.refusals(program, pop)


@dataclasses.dataclass(frozen=True)
class MAP(Procedure):
    """Maximum a posteriori: the mode of prior × marginal likelihood, in constrained parameters.

    Parameters
    ----------
    objective : FO, FOCE, Laplace or AGQ
        The approximation of the marginal likelihood.

    Examples
    --------
    >>> hx.MAP(hx.Laplace()).label
    'MAP'
    """

    objective: Estimator = FOCE()
    bayesian: ClassVar[bool] = True
    commands: ClassVar[Commands] = {"map": {}}

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return "MAP"


@dataclasses.dataclass(frozen=True)
class Joint(ModeEstimator):
    """−log joint density at the modes: the profile that :class:`JointMAP` minimises; no marginal likelihood."""

    newton: Newton = Newton()
    optimiser: QuasiNewton = QuasiNewton()

    @property
    def label(self) -> str:
        """Name of the objective."""
        return "joint density at the modes (no marginal likelihood)"

    def negative_log_likelihood(
        self, program: Program, pop: Population, params: Params, anchor: Anchor
    ) -> Float[Array, " subject"]:
        """Return −log p(y_i, η̂_i); by the envelope theorem its gradient is that at fixed modes."""
        value = self.joint(program, pop, params, anchor.eta)
        return jnp.where(jnp.asarray(pop.subject_mask), value, 0.0)


@dataclasses.dataclass(frozen=True)
class JointMAP(Procedure):
    """The joint mode of population parameters and random effects: prior × likelihood × random effects' density.

    Quick, and no substitute for a marginal estimate: SDs of random effects are biased low, and without priors that
    keep them from 0 there is no mode at all.

    Examples
    --------
    >>> hx.JointMAP().label
    'joint MAP'
    """

    objective: Estimator = Joint()
    bayesian: ClassVar[bool] = True
    commands: ClassVar[Commands] = {"joint-map": {}}

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return "joint MAP"


def marginal_potential(
    evaluate: Callable[[Array, Any, Population], Any], flat: Array, eta: Any, pop: Population
) -> Array:
    """Return −log marginal likelihood of the flat vector; its gradient comes with its value, from forward passes."""

    @jax.custom_vjp
    def negative(flat: Array) -> Array:
        return evaluate(flat, eta, pop).value.sum()

    def forward(flat: Array) -> tuple[Array, Array]:
        out = evaluate(flat, eta, pop)
        return out.value.sum(), out.gradient

    negative.defvjp(forward, lambda gradient, g: (g * gradient,))
    return negative(flat)


class Draws(NamedTuple):
    """What each iteration of each chain shows, (chain, iteration, ...)."""

    z: Any
    diverging: Array
    num_steps: Array
    energy: Array
    accept_prob: Array


def nuts_block(
    potential: Callable[[Any, Any], Array], sampler: _Sampler
) -> tuple[Callable[[Any, Any, Array], Any], Callable[[Any, Any], tuple[Any, Draws]]]:
    """Return two functions to be compiled: the start, and a block of iterations of all chains.

    ``potential(z, data)`` is −log density; ``begin(z, data, keys)`` → state; ``advance(state, data)`` → state, draws.
    NumPyro's functional kernels do the work; everything that the density depends on is an argument, so that other data
    compile nothing.
    """
    from numpyro.infer.hmc import hmc

    init, sample = hmc(potential_fn_gen=lambda data: lambda z: potential(z, data), algo="NUTS")

    def begin_one(z: Any, data: Any, key: Array) -> Any:
        return init(
            z,
            sampler.warmup,
            target_accept_prob=sampler.target_accept,
            max_tree_depth=sampler.max_tree_depth,
            model_args=(data,),
            rng_key=jax.random.wrap_key_data(key),
        )

    def advance_one(state: Any, data: Any) -> tuple[Any, Draws]:
        # Called for what it sets in the kernels: their adaptation belongs to the trace that they run in.
        begin_one(state.z, data, jax.random.key_data(jax.random.key(0)))

        def step(state: Any, _: Any) -> tuple[Any, Draws]:
            new = sample(state, model_args=(data,))
            return new, Draws(new.z, new.diverging, new.num_steps, new.energy, new.accept_prob)

        return jax.lax.scan(step, state, None, length=BLOCK)

    if sampler.chain_method == "vectorized":
        return jax.vmap(begin_one, (0, None, 0)), jax.vmap(advance_one, (0, None))
    # One chain after the other: each takes the steps that it needs, and no chain waits for another's.
    return (
        lambda z, data, keys: jax.lax.map(lambda pair: begin_one(pair[0], data, pair[1]), (z, keys)),
        lambda state, data: jax.lax.map(lambda one: advance_one(one, data), state),
    )


# Iterations that run together; between two blocks progress is shown and the state may be written.
BLOCK = 50
