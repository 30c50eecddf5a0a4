"""The summary of a fit: one table, with a first line that says how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd

from hierax.infer.result import Result
from hierax.program.checking.endpoints import unobserved
from hierax.program.density import unwrap
from hierax.program.parameters import element_names, elementwise
from hierax.program.read import cached
from hierax.results.individual import shrinkage
from hierax.results.tables.matrices import is_correlation, shown, shown_places
from hierax.results.tables.omega import Z, correlation_table, fisher_interval, matrix_table, spread_table
from hierax.results.uncertainty.posterior import posterior_table, spread_draws

if TYPE_CHECKING:
    from hierax.results.fit import Fit, Kind
    from hierax.results.uncertainty.covariance import Covariance

# An SE above this, in unconstrained (log, logit) space, means that the estimate has run to the end of its range.
_LARGEST_SE = 10.0
# The note of such a parameter in the table.
_BOUNDARY_NOTE = "at the boundary"
# An SD above this is not taken to be on a log scale, and no CV is shown for it.
_LARGEST_LOG_SD = 4.0
# The largest number of optima, of several starts, that are listed.
_MOST_OPTIMA = 4


class Summary(pd.DataFrame):
    """A table of estimates that prints with the lines around it."""

    _metadata = ["above", "below"]
    above: list[str]
    below: list[str]

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __repr__(self) -> str:
        table = pd.DataFrame(self).to_string(float_format=lambda value: f"{value:.5g}", na_rep="")
        return "\n".join([*self.above, "", table, "", *self.below])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        table = pd.DataFrame(self).to_html(float_format=lambda value: f"{value:.5g}", na_rep="")
        return f"<pre>{chr(10).join(self.above)}</pre>{table}<pre>{chr(10).join(self.below)}</pre>"


def summarise(fit: Fit, kind: Kind) -> Summary:
    """Return the summary of a fit; see :meth:`hierax.Fit.summary`."""
    if fit.samples is not None:
        return _posterior_summary(fit)
    covariance = fit.covariance(kind)
    out = Summary(estimates(fit, covariance))
    out.above = headlines(fit)
    out.below = footnotes(fit, covariance)
    return out


def _posterior_summary(fit: Fit) -> Summary:
    assert fit.samples is not None
    out = Summary(posterior_table(fit))
    chains = not fit.samples.independent
    good = "Mixed" if chains else "Converged"
    state = good if fit.result is Result.converged else f"NOT CONVERGED ({fit.result.name})"
    out.above = [f"{state}: {fit.why}.", f"{fit.objective_label}."]
    diverging = fit.samples.stats.get("diverging")
    if diverging is not None:
        out.above.append(f"{int(diverging.sum())} of {diverging.size} draws diverged.")
    if len(out) and chains:
        least, most = out["ess_bulk"].min(), out["r_hat"].max()
        out.above.append(f"Effective sample size at least {least:.0f}; R-hat at most {most:.4f}.")
    out.below = ["mean, SD and quantiles of the posterior; mcse: Monte-Carlo error of the mean."]
    spread = spread_draws(fit)
    if len(spread):
        out.below += ["", "Random effects: posterior of SDs and correlations", _text(spread), ""]
    if not chains:
        out.below.append(
            f"{fit.samples.flat[..., 0].size} independent draws, no Markov chains: there is no R-hat and no "
            f"effective sample size, and how good they are depends on the distribution that they are drawn from."
        )
    return out


def estimates(fit: Fit, covariance: Covariance) -> pd.DataFrame:
    """Return estimate, SE, RSE and interval of every element of every population parameter except network weights."""
    rows: dict[str, dict[str, Any]] = {}
    weights = fit.layout.weights()
    entry = fit.layout.names()
    spread = pd.Series(np.sqrt(np.diag(covariance.unconstrained)), index=covariance.unconstrained.index)
    natural = covariance.se
    for name, site in fit.program.sites.population.items():
        place = fit.layout.slices[name]
        if weights[place].any():
            continue
        value = np.asarray(shown(site, fit.params[name]))
        free = np.atleast_1d(fit.free[place])
        places = shown_places(site) if not elementwise(site) else np.ones(value.size, bool)
        for index, (element, estimate) in enumerate(zip(element_names(name, site.shape), value.ravel(), strict=True)):
            if not places[index]:
                continue
            varies = bool(free[index]) if elementwise(site) else bool(free.any())
            row: dict[str, Any] = {
                "estimate": float(estimate),
                "SE": np.nan,
                "RSE %": np.nan,
                "2.5 %": np.nan,
                "97.5 %": np.nan,
            }
            if varies and element in natural.index:
                row["SE"] = float(natural[element])
                row["RSE %"] = 100 * row["SE"] / abs(float(estimate)) if estimate else np.nan
                if elementwise(site):
                    centre = fit.flat[place][index]
                    ends = centre + np.array([-Z, Z]) * spread[entry[place.start + index]]
                    row["2.5 %"], row["97.5 %"] = sorted(_back(site, fit.flat[place], end, index) for end in ends)
                else:
                    row["2.5 %"], row["97.5 %"] = _matrix_interval(float(estimate), row["SE"], site, index)
            ended = varies and (
                _ended(entry[place.start + index], spread, covariance)
                if elementwise(site)
                # The element of a matrix has no SE, and an entry of the matrix is at the end of its range.
                else element not in natural.index and bool(set(entry[place]) & set(covariance.boundary))
            )
            if ended and elementwise(site):
                ends = (_back(site, fit.flat[place], end, index) for end in (-np.inf, np.inf))
                row["SE"], row["RSE %"], (row["2.5 %"], row["97.5 %"]) = np.nan, np.nan, sorted(ends)
            row["note"] = _note(fit, name, element, varies, covariance) or (_BOUNDARY_NOTE if ended else "")
            rows[element] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _ended(entry: str, spread: pd.Series, covariance: Covariance) -> bool:
    """Return whether a parameter has reached the end of its range, or nearly so."""
    return entry in covariance.boundary or float(spread.get(entry, 0.0)) > _LARGEST_SE


def _back(site: Any, free: np.ndarray, end: float, index: int) -> float:
    """Return one element of a site on the natural scale, after its unconstrained entry has been moved to ``end``.

    The whole site is transformed, because its bounds may differ by element.
    """
    moved = free.copy()
    moved[index] = end
    return float(np.ravel(np.asarray(site.transform(moved.reshape(site.shape))))[index])


def _matrix_interval(estimate: float, se: float, site: Any, index: int) -> tuple[float, float]:
    """Return a Wald interval for an element of a matrix.

    It is on the log scale for the diagonal of a covariance matrix, on that of Fisher's z for correlations, and
    otherwise on the natural scale.
    """
    if is_correlation(site):
        low, high = fisher_interval(np.array(estimate), np.array(se))
        return float(low), float(high)
    row, column = np.unravel_index(index, site.shape) if len(site.shape) == 2 else (0, 1)
    if row == column and estimate > 0:
        width = Z * se / estimate
        return estimate * float(np.exp(-width)), estimate * float(np.exp(width))
    return estimate - Z * se, estimate + Z * se


def _note(fit: Fit, site: str, element: str, varies: bool, covariance: Covariance) -> str:
    if element in fit.held or site in fit.held:
        return "not in this objective; held"
    if not varies:
        return "fixed"
    if element in covariance.unidentified:
        return "not identified"
    return ""


def headlines(fit: Fit) -> list[str]:
    """Return the lines above the table: how the fit ended, its objective, its likelihood and information criteria."""
    state = "Converged" if fit.result is Result.converged else f"NOT CONVERGED ({fit.result.name})"
    lines = [f"{state}: {fit.why}."]
    bad = fit.subject_results[fit.subject_results != "converged"]
    if len(bad):
        lines.append(
            f"Modes of {len(bad)} subjects did not converge: {bad.value_counts().to_dict()}; first {bad.index[0]}."
        )
    lines.append(f"{fit.objective_label}.")
    if fit.variational is not None:
        bound, error = fit.variational.elbo
        lines.append(f"Bound of the log likelihood {bound:.3f} (Monte-Carlo error {error:.3f}).")
    # Algorithms without a marginal likelihood say so in their label. For a search that failed, the NaN is shown.
    if fit.method is None or np.isfinite(fit.log_likelihood):
        lines.append(_likelihoods(fit))
    if fit.solver_error:
        errors = ", ".join(f"{name} {error:.1e}" for name, error in fit.solver_error.items())
        lines.append(f"Max relative solver error, at the modes and two SDs around them: {errors}.")
    starts = fit.starts
    if len(starts) > 1:
        ends = starts.groupby("optimum")["ofv"].agg(["min", "size"]).head(_MOST_OPTIMA)
        shown = ", ".join(f"{low:.3f} ({int(count)})" for low, count in ends.to_numpy())
        more = ", ..." if starts["optimum"].max() > len(ends) else ""
        lines.append(f"{len(starts)} starts; lowest OFV (and how many starts reached it): {shown}{more}.")
    lines += unobserved(fit.program, fit.pop, fit.params)
    if fit.penalty:
        lines.append(f"Penalty (-log prior, not in the objective above): {fit.penalty:.5f}.")
    return lines


def _likelihoods(fit: Fit) -> str:
    return (
        f"OFV {fit.ofv:.5f}   -2 log L {-2 * fit.log_likelihood:.5f}   AIC {fit.aic:.3f}   "
        f"BIC {fit.bic('subjects'):.3f} (N = {len(fit.rows)} subjects), {fit.bic('observations'):.3f} "
        f"(N = {fit.n_observations} observations)"
    )


def footnotes(fit: Fit, covariance: Covariance) -> list[str]:
    """Return the lines below the table: the covariance, ignored priors, and random effects."""
    lines = [f"SE by the {covariance.kind} covariance; condition number {covariance.condition_number:.3g}."]
    if not covariance.ok:
        lines = [f"No SE: the {covariance.kind} matrix is not positive definite. {_why_flat(covariance)}"]
    elif not covariance.stationary:
        lines.append("The fit has not converged, so that these SEs are only a rough indication.")
    if covariance.boundary:
        lines.append(
            f"On the boundary of their range: {', '.join(covariance.boundary)}. The other SEs hold these parameters "
            f"fixed; hx.profile(fit, '{covariance.boundary[0]}') gives an interval."
        )
    noise = covariance.monte_carlo
    if covariance.ok and noise is not None and len(noise):
        lines.append(
            f"The SEs come from draws: their Monte-Carlo error is at most {noise.max():.1%} of them ({noise.idxmax()})."
        )
    if fit.layout.weights().any():
        lines.append("SEs hold the network weights fixed, because these are not in the covariance.")
    if fit.ignored_priors:
        lines.append(
            f"Priors ignored by this estimator: {', '.join(fit.ignored_priors)} (use_priors=True counts them)."
        )
    if len(fit.program.effect_names):
        lines += ["", "Random effects", _text(random_effects(fit, covariance))]
        correlations = effect_correlations(fit)
        if correlations is not None:
            lines += ["", "Correlations of random effects, SDs on the diagonal", _text(correlations)]
            lines += ["", _text(correlation_table(fit, covariance))]
    apart = matrix_table(fit, covariance)
    if len(apart):
        lines += ["", "Covariances outside the distribution of random effects, as SDs and correlations", _text(apart)]
    return lines


def _text(table: pd.DataFrame) -> str:
    return table.to_string(float_format=lambda value: f"{value:.4g}", na_rep="")


def _why_flat(covariance: Covariance) -> str:
    """Return a sentence that says what a matrix that is not positive definite means."""
    if not covariance.stationary:
        return "The fit has not converged, so that this says nothing about which parameters the data identify."
    what = f": {', '.join(covariance.unidentified)}" if covariance.unidentified else ""
    return f"Not identified by the data{what}."


def random_effects(fit: Fit, covariance: Covariance | None = None) -> pd.DataFrame:
    """Return, by coordinate, the prior SD, its CV % = 100 √(exp ω² − 1) for effects on a log scale, and the shrinkage.

    With the covariance of the estimates, the SE and the interval of the SD are included.
    """
    table = shrinkage(fit)
    if covariance is not None:
        for place, (name, column) in enumerate(spread_table(fit, covariance).items()):
            table.insert(1 + place, str(name), column)
    # An SD of 1 is taken as that of a standard normal z, which the program scales elsewhere: it has no CV of its own.
    omega = table["omega (SD)"].where((table["omega (SD)"] < _LARGEST_LOG_SD) & (table["omega (SD)"] != 1.0))
    table.insert(1 if covariance is None else 4, "CV % (if log-normal)", 100 * np.sqrt(np.expm1(omega**2)))
    return table


def effect_covariance(fit: Fit) -> dict[str, np.ndarray]:
    """Return the prior covariance of every multivariate-normal random effect, for the first subject."""
    sites = fit.program.sites.effects

    def read(pop: Any, params: Any) -> Any:
        run = fit.program.run(pop, params, None, stop=True)
        out = {}
        for name in sites:
            fn: Any = unwrap(run.messages[name]["fn"])[1]
            while isinstance(fn, dist.TransformedDistribution):
                fn = unwrap(fn.base_dist)[1]
            if type(fn) is dist.MultivariateNormal:
                full: Any = fn.covariance_matrix
                out[name] = full.reshape(-1, *full.shape[-2:])[0]
        return out

    function = cached(fit.program, "covariance", lambda: jax.jit(read))
    return {name: np.asarray(value) for name, value in function(fit.pop, fit.params).items()}


def effect_correlations(fit: Fit) -> pd.DataFrame | None:
    """Return the correlations of random effects, with SDs on the diagonal; None where none are multivariate-normal."""
    blocks = effect_covariance(fit)
    if not blocks:
        return None
    names = [name for site in blocks for name in fit.program.sites.effects[site].names[: len(blocks[site])]]
    out = pd.DataFrame(np.full((len(names), len(names)), np.nan), index=names, columns=names)
    start = 0
    for block in blocks.values():
        spread = np.sqrt(np.diag(block))
        values = block / np.outer(spread, spread)
        np.fill_diagonal(values, spread)
        out.iloc[start : start + len(block), start : start + len(block)] = values
        start += len(block)
    return out
