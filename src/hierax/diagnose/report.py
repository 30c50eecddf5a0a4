"""A report of a fit in one HTML file."""

from __future__ import annotations

import base64
import html
import importlib.metadata
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from hierax.diagnose.figures import course as course_plots
from hierax.diagnose.figures import fits as plots
from hierax.infer.result import Result
from hierax.infer.run.archive import try_folder
from hierax.results.fit import Fit
from hierax.results.fixed import need_fit
from hierax.results.individual import observed_endpoints
from hierax.results.tables.summary import effect_correlations, random_effects

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #ddd;padding-bottom:.2rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #eee}th:first-child{text-align:left}
img{max-width:100%;height:auto}.bad{color:#b00;font-weight:600}p.note{color:#555;font-size:.9rem}
"""


def report(fit: Fit, path: str | Path, *, title: str = "Hierax fit", seed: int = 0) -> Path:
    """Write parameters, convergence, fits and a VPC to one self-contained HTML file.

    The content depends on the method. After FOCE, SAEM or VI, the report shows estimates with their standard errors and
    the course of the search; after NUTS, the table of the posterior with R-hat and effective sample sizes, and the
    traces of the chains.

    Parameters
    ----------
    fit : Fit
        The fit.
    path : path
        The file to write.
    title : str
        Heading of the report.
    seed : int
        Seed of the simulations of the VPC.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        The path is a folder, its folder does not exist, or it cannot be written to.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> hx.report(fit, pathlib.Path(tempfile.mkdtemp()) / 'decay.html').name
    'decay.html'
    """
    need_fit(fit, "report")
    try_folder(Path(path), "path")
    summary = fit.summary()
    heading = "Parameters" if fit.samples is None else "Parameters: the posterior"
    parts = [f"<h1>{html.escape(title)}</h1>", _head(fit, summary), f"<h2>{heading}</h2>", _parameters(summary)]
    parts += ["<h2>Random effects</h2>", _effects(fit)]
    sections: list[tuple[str, str, Callable[[], Any]]] = [
        (*_course(fit), lambda: course_plots.convergence(fit)),
    ]
    names = observed_endpoints(fit)
    if names:
        sections += [
            ("Observed against predicted", "", lambda: plots.observed_predicted(fit)),
            ("Individual weighted residuals", "", lambda: plots.residuals(fit)),
        ]
    few = "The first 24 subjects." if len(fit.ids) > 24 else ""
    for name in names:
        title_of = f"Individual fits: {name}"
        sections.append((title_of, few, lambda name=name: plots.individual_fits(fit, endpoint=name)))
    for name in names:
        sections.append(
            (f"Visual predictive check: {name}", "", lambda name=name: plots.vpc(fit, endpoint=name, seed=seed))
        )
    for heading, note, draw in sections:
        parts += [f"<h2>{html.escape(heading)}</h2>", _note(note), _image(draw(), heading)]
    parts += ["<h2>How it was computed</h2>", _provenance(fit)]
    path = Path(path)
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    path.write_text(
        f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n", "utf-8"
    )
    return path


def _head(fit: Fit, summary: Any) -> str:
    first, *rest = summary.above
    kind = "note" if fit.result is Result.converged else "bad"
    return f"<p class='{kind}'>{html.escape(first)}</p>" + "".join(f"<p>{html.escape(line)}</p>" for line in rest)


def _parameters(summary: Any) -> str:
    # The lines after the empty one are tables of random effects, which have a section of their own in the report.
    lines = summary.below[: summary.below.index("")] if "" in summary.below else summary.below
    return _table(pd.DataFrame(summary)) + "".join(_note(line) for line in lines)


def _course(fit: Fit) -> tuple[str, str]:
    """Return heading and note of the section that shows how the fit came about."""
    if fit.samples is not None and fit.samples.stats:
        chains, draws = fit.samples.flat.shape[:2]
        return "Chains", f"{chains} chains of {draws} draws after the warm-up; marks below: draws that diverged."
    return "Convergence", ""


def _effects(fit: Fit) -> str:
    if not fit.program.effect_names:
        return _note("The program has no random effects.")
    correlations = effect_correlations(fit)
    out = _table(random_effects(fit))
    if correlations is not None:
        out += _note("Correlations, SDs on the diagonal:") + _table(correlations)
    return out


def _table(frame: pd.DataFrame) -> str:
    return frame.to_html(float_format=lambda value: f"{value:.4g}", na_rep="", border=0)


def _note(text: str) -> str:
    return f"<p class='note'>{html.escape(text)}</p>" if text else ""


def _image(figure: Any, alternative: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"<img alt='{html.escape(alternative)}' src='data:image/png;base64,{data}'>"


def _provenance(fit: Fit) -> str:
    versions = {name: importlib.metadata.version(name) for name in ("hierax", "jax", "numpyro", "optimistix")}
    rows = {"objective": fit.objective_label, "method": _described(fit)}
    by = fit.estimator
    if by.citation:
        rows["reference"] = by.citation
    if fit.variational is not None:
        bound, error = fit.variational.elbo
        rows["bound"] = f"{bound:.3f} (Monte-Carlo error {error:.3f})"
    if fit.samples is None:
        rows["standard errors"] = _STANDARD_ERRORS[fit.usual_covariance]
    compiled = f", of which compilation {fit.timing['compile']:.2f}" if fit.timing["compile"] else ""
    rows |= {
        _counted(fit): str(int(fit.timing["evaluations"])),
        "seconds": f"{fit.timing['total']:.2f}{compiled}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return (
        "<table>"
        + "".join(
            f"<tr><th>{html.escape(key)}</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
            for key, value in rows.items()
        )
        + "</table>"
    )


# Descriptions of the standard errors, by kind of covariance.
_STANDARD_ERRORS = {
    "hessian": "inverse Hessian of the objective",
    "louis": "Louis' formula: the observed information of the exact likelihood, over draws of the random effects",
    "sandwich": "sandwich",
    "score": "outer products of the subjects' scores",
}


def _described(fit: Fit) -> str:
    """Return a description of the algorithm with its options."""
    return str(fit.approximation.optimiser) if fit.method is None else str(fit.method)


def _counted(fit: Fit) -> str:
    """Return what the fit's number of evaluations counts."""
    if fit.samples is not None and fit.samples.stats:
        return "leapfrog steps"
    if "bound" in fit.history:
        return "steps"
    return "iterations" if "phase" in fit.history else "evaluations"
