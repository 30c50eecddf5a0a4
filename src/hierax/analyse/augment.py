"""``hx.augment``: learn the distribution of random effects from a fit, and put it into the program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
from numpyro.distributions.transforms import LowerCholeskyAffine

from hierax.analyse.augment_advice import advise, tolerated_bias
from hierax.data.context import Context
from hierax.data.population import Population
from hierax.estimate import evaluate
from hierax.estimate import fit as fit_once
from hierax.infer.learn.choice import Choice, Split, choose
from hierax.infer.learn.two_stage import Build, Draws, Learner
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.laplace import Laplace
from hierax.infer.procedure import Procedure
from hierax.infer.saem.roles import find_roles
from hierax.nn.flow import flow
from hierax.nn.masked import INNER
from hierax.nn.penalties import l2
from hierax.program.sites import is_tree
from hierax.program.swap import outer_transforms, swappable, swapped
from hierax.program.trace import Model
from hierax.results.fit import Evaluation, Fit
from hierax.results.fixed import as_fit
from hierax.results.uncertainty.conditional import padded_draws

PENALTIES = (1000.0, 200.0, 40.0, 8.0, 1.6)
# Draws of a subject that are tried in turn, until their bias is small enough.
_COUNTS = (40, 160, 640)
# Numbers that draws may take before no more are asked for.
_NUMBERS = 10_000_000
# Covariates whose p value is higher are left out.
_CLEAR = 0.01


@dataclasses.dataclass(frozen=True)
class Augmented:
    """A program with a learned distribution of random effects.

    Attributes
    ----------
    model : callable
        The program: the old one, with the learned distribution in place.
    params : dict
        Its parameters: those of the fit and the learned ones, for ``init=``.
    priors : dict
        The penalty of the weights, for ``priors=``.
    redundant : list of str
        Parameters of the fit that the learned distribution takes over: those of the old distribution, which no longer
        do anything, and typical values that only shift the random effects. For ``fixed=``.
    others : list of str
        All parameters of the fit, to refit the distribution alone.
    context : Context or None
        What makes the covariates' vector of a population.
    table : pandas.DataFrame
        By candidate and strength of the penalty: mean held-out gain over the fit's own distribution (nats a subject)
        and its SE.
    importance : pandas.DataFrame or None
        By covariate: the held-out gain (nats a subject) that is lost where its values are permuted between subjects,
        all others as they are, its SE, and the p value of Wilcoxon's signed-rank test.
    chosen, strength : str, float
        The candidate and the strength with the highest gain.
    gain : pandas.Series
        By how many nats each subject of the fit is more likely than under the fit's own distribution, by its draws.
    draws, bias : int, float
        Draws of a subject that were used, and the mean bias (nats a subject) of the log of their mean, to first order.
        It has been added back; what is left is of second order, but no longer small where this is not.
    fit : Fit
        Of the program: refitted if that was asked for, else at the learned parameters.

    Examples
    --------
    >>> learned = hx.augment(fit, draws=20, penalties=[10.0], folds=2, steps=10)  # doctest: +SKIP
    """

    model: Model
    params: dict[str, Any]
    priors: dict[str, Any]
    redundant: list[str]
    others: list[str]
    context: Context | None
    table: pd.DataFrame
    importance: pd.DataFrame | None
    chosen: str
    strength: float
    gain: pd.Series
    draws: int
    bias: float
    fit: Fit

    def __repr__(self) -> str:
        table = self.table.to_string(float_format="%.4f", index=False)
        return f"Held-out gain a subject in nats; {self.chosen} with strength {self.strength:g} was chosen\n{table}"


def augment(
    fit: Evaluation,
    covariates: Sequence[str] | str | None = None,
    *,
    distribution: Build | Mapping[str, Build] | None = None,
    site: str | None = None,
    name: str = "flow",
    draws: int | None = None,
    penalties: Sequence[float] = PENALTIES,
    select: bool = True,
    folds: int = 5,
    held_out: float | None = None,
    patience: int = 5,
    steps: int = 1000,
    refit: Estimator | Procedure | None = None,
    joint: bool = True,
    seed: int = 0,
) -> Augmented:
    """Learn the distribution of a fit's random effects, conditional on covariates if any, and put it into the program.

    In two stages: draws of each subject's conditional distribution, under the fit's own prior p₀; then maximum
    likelihood for the new distribution p, the marginal likelihood of a subject being in proportion to the mean of
    p(η)/p₀(η) over its draws. The strength of the weights' penalty is chosen by subjects that are held out.

    Parameters
    ----------
    fit : Fit or Evaluation
        With random effects that are Normal, MultivariateNormal or LogNormal, one vector a subject.
    covariates : sequence of str, optional
        Names in ``pop.covariates`` or ``pop.data`` (vectors, embeddings) that the distribution is conditional on. They
        are standardised, and categories become columns.
    distribution : callable, or mapping of names to callables, optional
        Context, (subject, 1, column) or None → NumPyro distribution of the standardised random effects (the fit's
        own distribution is N(0, I) there), registering its parameters: :func:`hierax.flow`,
        :func:`hierax.nn.conditional_normal`, or NumPyro's flows and mixtures with ``numpyro.param``. Of several
        the one that held-out subjects are most likely under. By default flows of four autoregressive layers, of
        sinh-arcsinh and of affine maps: both are smooth, and the first can make tails heavier or lighter.
    site : str, optional
        The random effect, where the program has several.
    name : str
        Of the default flow's weights, ``name$params``.
    draws : int, optional
        Draws of a subject, all of which are used in every step. By default as many as the bias asks for: 40, 160 or
        640. The log of a mean over draws is biased low, most where a subject's data say little; a trial with one
        candidate shows by how much, see ``bias``.
    penalties : sequence of float
        Strengths of the weights' penalty to choose from, as :func:`hierax.nn.l2` has them; layers inside a flow are
        spared.
    select : bool
        Whether covariates whose permutation costs held-out subjects nothing for sure (p above 0.01) are left out, and
        the distribution is learned again from the others. See ``importance``.
    folds : int
        Parts that the subjects are split into for choosing the strength.
    held_out : float, optional
        A fraction of the subjects instead of folds: training stops early, where those are most likely, and what was
        found then is kept.
    patience : int
        For ``held_out``: looks (every 50 steps) without a rise of their likelihood that end the training.
    steps : int
        Of Adam, by mini-batches of subjects and draws.
    refit : estimator, optional
        To fit the new program with from there on.
    joint : bool
        Whether the refit moves the other parameters too, or the distribution alone.
    seed : int
        Of the split and of the start weights.

    Returns
    -------
    Augmented

    Raises
    ------
    ValueError, ModelError
        No such covariate or site, or one that has no learned distribution; what to do is said.

    Notes
    -----
    The mean ratio over draws has a large variance where the data are weak and p is far from p₀: refit then, and compare
    with ``hx.log_likelihood(fit, hx.ImportanceSampling())``.

    Examples
    --------
    >>> learned = hx.augment(fit, ['WT'], refit=hx.SAEM())  # doctest: +SKIP
    """
    fit = as_fit(fit)
    pop, program = fit.pop, fit.program
    _refuse(penalties, folds, held_out, len(fit.rows), draws)
    effect = swappable(program, site)
    context = None if covariates is None else Context.of(pop, covariates)
    where, root = _standard(fit, effect.name)

    def draw(count: int) -> Draws:
        return dataclasses.replace(_draws(fit, effect.name, where, root, count), context=_known(context, pop))

    candidates = _candidates(distribution, name, effect.size)
    first, middle = next(iter(candidates.values())), float(np.median(penalties))
    drawn = _enough(draw, first, fit.rows, draws, middle, seed, steps)
    split = Split.of(fit.rows, folds, held_out, patience, seed)

    def learn(context: Context | None) -> Choice:
        return choose(candidates, dataclasses.replace(drawn, context=_known(context, pop)), split, penalties, steps)

    choice, context, importance = _selected(learn, pop, context, select, seed)
    trained = choice.final()
    gain = pd.Series(np.asarray(trained.gain)[fit.rows], index=pd.Index(fit.ids, name="subject"), name="gain")
    bias = float(np.asarray(choice.learner.bias(trained.flat))[fit.rows].mean())
    advise(choice, penalties, bias, float(gain.mean()))
    learned = _placed(choice.learner.build, context, [_affine(where, root), *outer_transforms(program, effect.name)])
    model, new = swapped(program.model, effect.name, learned), choice.learner.params(trained.flat)
    priors = {key: l2(choice.strength, without=INNER) for key, value in new.items() if is_tree(value)}
    held, done = _with_it(fit, model, new, refit, priors, joint, seed)
    return Augmented(
        model=model,
        params={**fit.params, **new} if refit is None else done.params,
        priors=priors,
        **held,
        context=context,
        table=choice.table,
        importance=importance,
        chosen=choice.name,
        strength=choice.strength,
        gain=gain,
        draws=len(drawn.z),
        bias=bias,
        fit=done,
    )


def _affine(where: Any, root: Any) -> LowerCholeskyAffine:
    return LowerCholeskyAffine(jnp.asarray(where), jnp.asarray(root))


def _with_it(
    fit: Fit, model: Any, new: dict[str, Any], refit: Any, priors: dict[str, Any], joint: bool, seed: int
) -> tuple[dict[str, list[str]], Fit]:
    """Return which parameters the new program needs no more and which are not new, and what it is worth there."""
    names = {"redundant": _redundant(fit), "others": list(fit.params)}
    params = {**fit.params, **new}
    if refit is None:
        return names, _evaluated(fit, model, params)
    held = names["redundant"] if joint else names["others"]
    return names, _refitted(fit, model, params, refit, held, priors, seed)


def _selected(
    learn: Callable[[Context | None], Choice], pop: Population, context: Context | None, select: bool, seed: int
) -> tuple[Choice, Context | None, pd.DataFrame | None]:
    """Return what was chosen, the covariates that it is conditional on, and how much each of them all counts."""
    choice = learn(context)
    if context is None:
        return choice, None, None
    importance = choice.importance(context.places, seed)
    kept = _kept(importance) if select else context.names
    if len(kept) < len(context.names):
        context = Context.of(pop, kept)
        choice = learn(context)
    return choice, context, importance


def _placed(build: Build, context: Context | None, outer: list[Any]) -> Callable[[Population], dist.Distribution]:
    """Return the distribution of a population's random effects: standardised ones, taken to where they belong."""

    def learned(pop: Population) -> dist.Distribution:
        return dist.TransformedDistribution(build(_known(context, pop)), outer)

    return learned


def _known(context: Context | None, pop: Population) -> Any:
    """Return what is known of each subject, (subject, 1, k), or None."""
    return None if context is None else context(pop)


def _refuse(penalties: Sequence[float], folds: int, held_out: float | None, subjects: int, draws: int | None) -> None:
    if draws is not None and draws < 2:
        raise ValueError(f"augment(draws={draws}) has no mean over draws. Give 2 or more, or leave it out.")
    if not len(penalties) or not all(strength > 0 for strength in penalties):
        raise ValueError(f"augment(penalties={penalties}) has to be one positive strength or more, (1.0, 0.1) say.")
    if held_out is None and not 2 <= folds <= subjects:
        raise ValueError(f"augment(folds={folds}) cannot split {subjects} subjects. Give 2 to {subjects}.")
    if held_out is not None and not 0 < held_out < 1:
        raise ValueError(f"augment(held_out={held_out}) is no fraction of the subjects. Give 0.2, say.")


def _enough(
    drawn: Callable[[int], Draws],
    build: Build,
    rows: np.ndarray,
    draws: int | None,
    strength: float,
    seed: int,
    steps: int,
) -> Draws:
    """Return as many draws as were asked for, or as a trial shows to be enough."""
    if draws is not None:
        return drawn(draws)
    for count in _COUNTS:
        found = drawn(count)
        if count == _COUNTS[-1] or _COUNTS[-1] * found.z[0].size > _NUMBERS:
            break
        learner = Learner(build, found, seed, steps)
        trained = learner.train(np.isin(np.arange(found.z.shape[1]), rows), strength)
        bias = np.asarray(learner.bias(trained.flat))[rows].mean()
        if bias <= tolerated_bias(float(np.asarray(trained.gain)[rows].mean())):
            break
    return found


def _kept(importance: pd.DataFrame) -> list[str]:
    """Return the covariates that clearly count, or the one that counts most where none does."""
    clear = list(importance.index[importance["p"] < _CLEAR])
    return [str(name) for name in clear] or [str(importance["gain"].idxmax())]


def _candidates(distribution: Any, name: str, size: int) -> dict[str, Build]:
    if distribution is None:
        return {f"{kind} flow": _flow(name, size, kind) for kind in ("sinh", "affine")}
    return {"distribution": distribution} if callable(distribution) else dict(distribution)


def _flow(name: str, size: int, kind: str) -> Build:
    return lambda context: flow(name, size, context, kind=kind, layers=4)


def _standard(fit: Fit, site: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and factor of the covariance of the random effects over the population, in their coordinates."""
    program, rows = fit.program, fit.rows
    places = _places(fit, site)
    mean = np.asarray(program.reference(fit.pop, fit.params))[rows][:, places]
    eta = jnp.zeros((fit.pop.n_subjects, len(program.effect_names)))
    root = np.asarray(program.prior_root(fit.pop, fit.params, eta))[rows][:, places][:, :, places]
    # Where the distribution differs between subjects: the spread of the means comes to that around them.
    covariance = np.einsum("nij,nkj->ik", root, root) / len(rows) + np.atleast_2d(np.cov(mean.T, ddof=0))
    return mean.mean(0), np.linalg.cholesky(covariance)


def _places(fit: Fit, site: str) -> list[int]:
    names = fit.program.sites.effects[site].names
    return [list(fit.program.effect_names).index(one) for one in names]


def _draws(fit: Fit, site: str, where: np.ndarray, root: np.ndarray, count: int) -> Draws:
    """Return standardised draws of all rows, padded ones included, with the density that their prior gave them."""
    program, pop = fit.program, fit.pop
    eta = padded_draws(fit, count)
    eta = jnp.asarray(eta.reshape(-1, *eta.shape[2:]))
    coordinate = jnp.asarray(_places(fit, site))

    def density(eta: Any) -> Any:
        run = program.run(pop, fit.params, eta, stop=True)
        return program.log_prior(pop, fit.params, eta, run, only=site)

    log_prior = jax.jit(lambda every: jax.lax.map(density, every))(eta)
    z = np.linalg.solve(root, (np.asarray(eta[..., coordinate]) - where)[..., None])[..., 0]
    jacobian = np.log(np.diagonal(root)).sum()
    return Draws(z, np.asarray(log_prior) + jacobian)


def _redundant(fit: Fit) -> list[str]:
    """Return sites all of whose entries the random effects' distribution alone has, or that only shift effects."""
    roles = find_roles(fit.program, fit.pop, fit.layout, fit.flat, np.ones(fit.layout.size, bool))
    taken = roles.prior | roles.shift
    return [name for name, place in fit.layout.slices.items() if taken[place].all()]


def _refitted(
    fit: Fit,
    model: Model,
    params: dict[str, Any],
    refit: Estimator | Procedure,
    held: list[str],
    priors: dict[str, Any],
    seed: int,
) -> Fit:
    """Return the new program fitted from the learned parameters on, some of which are held."""
    return fit_once(
        model, fit.pop, refit, init=params, fixed=held, priors=priors, plate=fit.program.plate, seed=seed,
        progress=False,
    )  # fmt: skip


def _evaluated(fit: Fit, model: Model, params: dict[str, Any]) -> Fit:
    """Return the new program at the learned parameters, as a fit of nothing."""
    estimator = fit.estimator if fit.estimator.has_modes else Laplace()
    at = as_fit(evaluate(model, fit.pop, params, estimator, plate=fit.program.plate))
    return dataclasses.replace(at, free=at.layout.weights(), why="", seed=fit.seed)
