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
from hierax.analyse.candidates import candidates_of
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
from hierax.nn.masked import INNER
from hierax.nn.penalties import l2
from hierax.program.sites import is_tree
from hierax.program.swap import outer_transforms, swappable, swapped
from hierax.program.trace import Model
from hierax.results.fit import Evaluation, Fit
from hierax.results.fixed import as_fit
from hierax.results.uncertainty.conditional import padded_draws

# Strengths of the weights' penalty that are compared by default, each a fifth of the one before.
PENALTIES = (1000.0, 200.0, 40.0, 8.0, 1.6)
# Numbers of draws per subject that are tried in turn until the bias of the log of their mean is small enough.
_DRAW_COUNTS = (40, 160, 640)
# Where the largest of these counts would need more numbers than this (draws × subjects × coordinates), the smallest
# count is used without a trial, which bounds the size of the arrays.
_MOST_NUMBERS = 10_000_000
# Covariates whose importance has a p value above this are left out.
_CLEAR_P = 0.01


@dataclasses.dataclass(frozen=True)
class Augmented:
    """A program with a learned distribution of random effects.

    Attributes
    ----------
    model : callable
        The program of the fit, with the learned distribution of random effects in place of the old one.
    params : dict
        Parameters of this program: those of the fit and the learned ones, for ``init=``.
    priors : dict
        The penalty of the weights, for ``priors=``.
    redundant : list of str
        Parameters of the fit that the learned distribution replaces: those of the old distribution, which no longer
        have any effect, and typical values that only shift the random effects. Pass them as ``fixed=``.
    others : list of str
        All parameters of the fit. Pass them as ``fixed=`` to refit the learned distribution alone.
    context : Context or None
        Computes each subject's vector of standardised covariates for any population; None without covariates.
    table : pandas.DataFrame
        One row per candidate and strength of the penalty: the mean held-out gain over the fit's own distribution (nats
        per subject) and its SE.
    importance : pandas.DataFrame or None
        One row per covariate: the held-out gain (nats per subject) that is lost when its values are permuted between
        subjects while all other covariates stay as they are, the SE of this loss, and the p value of Wilcoxon's
        signed-rank test.
    chosen, strength : str, float
        The candidate and the strength with the highest gain.
    gain : pandas.Series
        By how many nats each subject of the fit is more likely than under the fit's own distribution, as estimated from
        the subject's draws.
    draws, bias : int, float
        Number of draws per subject, and the mean bias (nats per subject) of the log of their mean, to first order. The
        gain has been corrected for this bias. The bias that remains is of second order, and is small only where the
        first-order bias is small.
    fit : Fit
        Fit of the new program: refitted if ``refit=`` was given, otherwise evaluated at the learned parameters.

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

    There are two stages. First, random effects are drawn from each subject's conditional distribution under the fit's
    own prior p₀. Then the new distribution p is fitted by maximum likelihood: a subject's marginal likelihood under p
    is proportional to the mean of p(η)/p₀(η) over its draws. The strength of the weights' penalty is chosen by the
    likelihood of held-out subjects.

    Parameters
    ----------
    fit : Fit or Evaluation
        Its random effects are Normal, MultivariateNormal or LogNormal, one vector per subject.
    covariates : sequence of str, optional
        Names in ``pop.covariates`` or ``pop.data`` (vectors, embeddings) that the distribution is conditional on. They
        are standardised, and categories become columns.
    distribution : callable, or mapping of names to callables, optional
        A function that takes the context, (subject, 1, column) or None, registers its parameters and returns a NumPyro
        distribution of the standardised random effects (the fit's own distribution is N(0, I) on that scale):
        :func:`hierax.flow`, :func:`hierax.nn.conditional_normal`, or NumPyro's flows and mixtures with
        ``numpyro.param``. Of several candidates, the one under which held-out subjects are most likely is chosen. By
        default two flows of four autoregressive layers are compared, one of sinh-arcsinh maps and one of affine maps:
        both are smooth, and the first can make tails heavier or lighter.
    site : str, optional
        Name of the random effect, where the program has several.
    name : str
        Name of the default flow, whose weights are the site ``name$params``.
    draws : int, optional
        Number of draws per subject, all of which are used in every step. By default 40, 160 or 640, as many as a trial
        with one candidate shows to be enough: the log of a mean over draws is biased low, most of all where a subject's
        data say little (see ``bias``).
    penalties : sequence of float
        Strengths of the weights' penalty to choose from, as for :func:`hierax.nn.l2`; inner layers of a flow are not
        penalised.
    select : bool
        Whether to leave out covariates whose permutation does not clearly lower the held-out likelihood (p above 0.01)
        and to learn the distribution again from the others. See ``importance``.
    folds : int
        Number of parts that the subjects are split into for choosing the strength.
    held_out : float, optional
        Fraction of the subjects to hold out once, instead of folds. Training then stops early, and the weights under
        which the held-out subjects were most likely are kept.
    patience : int
        For ``held_out``: training ends after this many looks (one every 50 steps) without a rise of the held-out
        likelihood.
    steps : int
        Number of steps of Adam, each on a mini-batch of subjects.
    refit : estimator, optional
        Estimator to fit the new program with, starting at the learned parameters.
    joint : bool
        Whether the refit estimates the other parameters too, or the learned distribution alone.
    seed : int
        Seed of the split and of the initial weights.

    Returns
    -------
    Augmented

    Raises
    ------
    ValueError, ModelError
        There is no such covariate or site, or the site cannot have a learned distribution; the message says what to do.

    Notes
    -----
    Where the data are weak and p is far from p₀, the mean ratio over draws has a large variance. In that case refit,
    and compare with ``hx.log_likelihood(fit, hx.ImportanceSampling())``.

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

    candidates = candidates_of(distribution, name, effect.size)
    first, middle = next(iter(candidates.values())), float(np.median(penalties))
    drawn = _sufficient_draws(draw, first, fit.rows, draws, middle, seed, steps)
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
    held, done = _fit_of_new_program(fit, model, new, refit, priors, joint, seed)
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


def _fit_of_new_program(
    fit: Fit, model: Any, new: dict[str, Any], refit: Any, priors: dict[str, Any], joint: bool, seed: int
) -> tuple[dict[str, list[str]], Fit]:
    """Return the redundant and the old parameters, and the new program refitted or at the learned parameters."""
    names = {"redundant": _redundant(fit), "others": list(fit.params)}
    params = {**fit.params, **new}
    if refit is None:
        return names, _evaluated(fit, model, params)
    held = names["redundant"] if joint else names["others"]
    return names, _refitted(fit, model, params, refit, held, priors, seed)


def _selected(
    learn: Callable[[Context | None], Choice], pop: Population, context: Context | None, select: bool, seed: int
) -> tuple[Choice, Context | None, pd.DataFrame | None]:
    """Return the chosen distribution, the covariates it is conditional on, and the importance of all covariates."""
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
    """Return a function from a population to the learned distribution, transformed back from the standardised scale."""

    def learned(pop: Population) -> dist.Distribution:
        return dist.TransformedDistribution(build(_known(context, pop)), outer)

    return learned


def _known(context: Context | None, pop: Population) -> Any:
    """Return each subject's vector of covariates, (subject, 1, column), or None without covariates."""
    return None if context is None else context(pop)


def _refuse(penalties: Sequence[float], folds: int, held_out: float | None, subjects: int, draws: int | None) -> None:
    if draws is not None and draws < 2:
        raise ValueError(
            f"augment(draws={draws}) must be 2 or more, because the gain is a mean over draws. Give more, or leave "
            f"it out."
        )
    if not len(penalties) or not all(strength > 0 for strength in penalties):
        raise ValueError(
            f"augment(penalties={penalties}) must hold one positive strength or more. Give (1.0, 0.1), say."
        )
    if held_out is None and not 2 <= folds <= subjects:
        raise ValueError(f"augment(folds={folds}) cannot split {subjects} subjects. Give 2 to {subjects}.")
    if held_out is not None and not 0 < held_out < 1:
        raise ValueError(
            f"augment(held_out={held_out}) must be a fraction of the subjects between 0 and 1. Give 0.2, say."
        )


def _sufficient_draws(
    drawn: Callable[[int], Draws],
    build: Build,
    rows: np.ndarray,
    draws: int | None,
    strength: float,
    seed: int,
    steps: int,
) -> Draws:
    """Return the requested number of draws or, by default, the number that a trial shows to be enough."""
    if draws is not None:
        return drawn(draws)
    for count in _DRAW_COUNTS:
        found = drawn(count)
        if count == _DRAW_COUNTS[-1] or _DRAW_COUNTS[-1] * found.z[0].size > _MOST_NUMBERS:
            break
        learner = Learner(build, found, seed, steps)
        trained = learner.train(np.isin(np.arange(found.z.shape[1]), rows), strength)
        bias = np.asarray(learner.bias(trained.flat))[rows].mean()
        if bias <= tolerated_bias(float(np.asarray(trained.gain)[rows].mean())):
            break
    return found


def _kept(importance: pd.DataFrame) -> list[str]:
    """Return the covariates with a clear importance, or the most important one where none is clear."""
    clear = list(importance.index[importance["p"] < _CLEAR_P])
    return [str(name) for name in clear] or [str(importance["gain"].idxmax())]


def _standard(fit: Fit, site: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the population mean of the random effects and the Cholesky factor of their covariance.

    Both are in the working coordinates of the random effects.
    """
    program, rows = fit.program, fit.rows
    places = _places(fit, site)
    mean = np.asarray(program.reference(fit.pop, fit.params))[rows][:, places]
    eta = jnp.zeros((fit.pop.n_subjects, len(program.effect_names)))
    root = np.asarray(program.prior_root(fit.pop, fit.params, eta))[rows][:, places][:, :, places]
    # Where subjects have different means, the variance between these is added to the mean variance around them.
    covariance = np.einsum("nij,nkj->ik", root, root) / len(rows) + np.atleast_2d(np.cov(mean.T, ddof=0))
    return mean.mean(0), np.linalg.cholesky(covariance)


def _places(fit: Fit, site: str) -> list[int]:
    names = fit.program.sites.effects[site].names
    return [list(fit.program.effect_names).index(one) for one in names]


def _draws(fit: Fit, site: str, where: np.ndarray, root: np.ndarray, count: int) -> Draws:
    """Return standardised draws for all rows, padding included, with their log density under the fit's own prior."""
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
    """Return the sites that enter only the random effects' distribution, or that only shift random effects."""
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
    """Return the fit of the new program, started at the learned parameters with the parameters in ``held`` fixed."""
    return fit_once(
        model, fit.pop, refit, init=params, fixed=held, priors=priors, plate=fit.program.plate, seed=seed,
        progress=False,
    )  # fmt: skip


def _evaluated(fit: Fit, model: Model, params: dict[str, Any]) -> Fit:
    """Return the new program evaluated at the learned parameters, as a fit whose free parameters are the weights."""
    estimator = fit.approximation if fit.approximation.has_modes else Laplace()
    at = as_fit(evaluate(model, fit.pop, params, estimator, plate=fit.program.plate))
    return dataclasses.replace(at, free=at.layout.weights(), why="", seed=fit.seed)
