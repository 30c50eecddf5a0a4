"""The command line: ``hierax demo``, ``hierax fit``, ``hierax check``."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hierax.data.population import Population
    from hierax.results.fit import Fit

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Nonlinear mixed-effects models as NumPyro programs.

Start with `hierax demo`: it fits Theophylline by FOCE and writes a report.

A model is a Python file with a function of the population:

    hierax check model.py:model data.csv --covariate WT

    hierax fit model.py:model data.csv --estimator foce --out results/

Data are NONMEM-style tables: ID, TIME, DV, AMT, ... in any case.
Compiled functions are kept on disk, so that a second run starts quickly (HIERAX_CACHE names the folder; empty: none).
""",
)

ModelArgument = Annotated[str, typer.Argument(help="Python file and function: `FILE.py:function`.")]
DataArgument = Annotated[Path, typer.Argument(help="NONMEM-style table (CSV or Parquet).")]
OutOption = Annotated[Path, typer.Option(help="Folder for the results.")]
EstimatorOption = Annotated[
    str, typer.Option(help="`fo`, `foce`, `foce-no-interaction`, `laplace`, `agq` (or `agq17`), `pooled`.")
]
CovariateOption = Annotated[list[str] | None, typer.Option(help="A covariate column; repeat for more.")]
EndpointOption = Annotated[list[str] | None, typer.Option(help="An endpoint `name=DVID`; repeat for more.")]
InterpolationOption = Annotated[
    str | None, typer.Option(help="What holds between records where a covariate varies: `nocb`, `locf`, `midpoint`.")
]
ColumnOption = Annotated[list[str] | None, typer.Option(help="A column's own name, `DV=conc`; repeat for more.")]


@app.command()
def demo(out: OutOption = Path("hierax-demo"), progress: bool = True) -> None:
    """Fit Theophylline by FOCE; print the table and write an HTML report with plots."""
    prepare()
    import hierax as hx
    from hierax import demo as example

    print(f"Theophylline, one compartment with first-order absorption: {example.population()}\n")
    fit = hx.fit(example.model, example.population(), hx.FOCE(), progress=progress)
    deliver(fit, out, "Theophylline by FOCE")


@app.command()
def fit(
    model: ModelArgument,
    data: DataArgument,
    estimator: EstimatorOption = "foce",
    out: OutOption = Path("hierax-fit"),
    covariate: CovariateOption = None,
    endpoint: EndpointOption = None,
    column: ColumnOption = None,
    interpolation: InterpolationOption = None,
    starts: Annotated[int, typer.Option(help="Number of starts.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the further starts.")] = 0,
    progress: bool = True,
) -> None:
    """Fit a model; write the summary, the table of records, the fit and an HTML report."""
    prepare()
    import hierax as hx

    function, pop = load_model(model), load_data(data, covariate, endpoint, column, interpolation)
    with plain_errors():
        result = hx.fit(function, pop, named_estimator(estimator), starts=starts, seed=seed, progress=progress)
        deliver(result, out, f"{Path(model.split(':')[0]).stem} by {result.estimator.label}")


@app.command()
def check(
    model: ModelArgument,
    data: DataArgument,
    covariate: CovariateOption = None,
    endpoint: EndpointOption = None,
    column: ColumnOption = None,
    interpolation: InterpolationOption = None,
) -> None:
    """Show what the engine makes of each site of a model, without fitting anything."""
    prepare()
    import hierax as hx

    function, pop = load_model(model), load_data(data, covariate, endpoint, column, interpolation)
    with plain_errors():
        hx.check(function, pop)


def prepare() -> None:
    """Turn on float64 and the compilation cache on disk."""
    import jax

    jax.config.update("jax_enable_x64", True)
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = os.environ.get("HIERAX_CACHE", str(home / "hierax" / "jax"))
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def deliver(fit: Fit, out: Path, title: str) -> None:
    """Print the summary; write everything that a fit has to say into a folder."""
    import hierax as hx
    from hierax.results.spreadsheet import write_csv

    out.mkdir(parents=True, exist_ok=True)
    summary = fit.summary()
    print(f"\n{summary}\n")
    write_csv(summary, out / "parameters.csv")
    write_csv(fit.table(), out / "table.csv", index=False)
    write_csv(fit.history, out / "history.csv", index=False)
    fit.save(out / "fit.hierax")
    report = hx.report(fit, out / "report.html", title=title)
    seconds = f"{fit.timing['total']:.1f} s, of which compilation {fit.timing['compile']:.1f} s"
    print(f"Fitted in {seconds}.\nReport: {report}\nAlso in {out}/: parameters.csv, table.csv, history.csv, fit.hierax")


def named_estimator(name: str) -> Any:
    """Return the estimator of a name on the command line."""
    import hierax as hx

    known = {
        "fo": hx.FO(),
        "foce": hx.FOCE(),
        "foce-no-interaction": hx.FOCE(interaction=False),
        "laplace": hx.Laplace(),
        "agq": hx.AGQ(9),
        "pooled": hx.NaivePooled(),
    }
    key = name.lower()
    if key.startswith("agq") and key[3:].isdigit():
        return hx.AGQ(int(key[3:]))
    if key not in known:
        raise typer.BadParameter(f"{name!r} is not known. Use one of {', '.join(known)}, or agqN.")
    return known[key]


def load_model(spec: str) -> Any:
    """Return the function of ``FILE.py:function``."""
    file, _, name = spec.partition(":")
    path = Path(file)
    if not name or not path.is_file():
        raise typer.BadParameter(f"{spec!r} is no model: write FILE.py:function, with a file that exists.")
    loader = importlib.util.spec_from_file_location(path.stem, path)
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    sys.path.insert(0, str(path.parent.resolve()))
    loader.loader.exec_module(module)
    if not hasattr(module, name):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise typer.BadParameter(f"{path} has no {name!r}; it has {', '.join(functions)}.")
    return getattr(module, name)


def load_data(
    data: Path,
    covariate: list[str] | None,
    endpoint: list[str] | None,
    column: list[str] | None,
    interpolation: str | None,
) -> Population:
    """Read the table of a command line."""
    import hierax as hx

    if not data.is_file():
        raise typer.BadParameter(f"{data} is not a file.")
    with plain_errors():
        return hx.read_nonmem(
            data,
            columns=_pairs(column),
            endpoints=_pairs(endpoint) or None,
            covariates=covariate or [],
            interpolation=interpolation,
        )


def _pairs(given: list[str] | None) -> dict[str, str]:
    wrong = [text for text in given or [] if "=" not in text]
    if wrong:
        raise typer.BadParameter(f"{wrong} should be NAME=VALUE.")
    return dict(text.split("=", 1) for text in given or [])


class plain_errors:
    """Prints the message of an expected error instead of a traceback."""

    def __enter__(self) -> plain_errors:
        return self

    def __exit__(self, kind: Any, error: Any, where: Any) -> None:
        if isinstance(error, ValueError | KeyError) and "HIERAX_TRACEBACK" not in os.environ:
            typer.secho(str(error), fg="red", err=True)
            raise typer.Exit(1) from None


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
