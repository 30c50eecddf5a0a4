"""The commands ``demo``, ``fit`` and ``check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hierax.cli.arguments import load_data, load_object, named_estimator, named_in, start_values
from hierax.cli.errors import plain_errors
from hierax.cli.outputs import deliver, exit_code, open_folder

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Nonlinear mixed-effects models as NumPyro programs.

Start with `hierax demo`: it fits Theophylline by FOCE and writes a report.

A model is a Python file with a function of the population:

    hierax check model.py:model data.csv --covariate WT

    hierax fit model.py:model data.csv --estimator foce --out results/

The model file is executed, as `python model.py` would do: run models of people you trust.

Data are NONMEM-style tables: ID, TIME, DV, AMT, ... in any case.
Compiled functions are kept on disk, so that a second run starts quickly (HIERAX_CACHE names the folder; empty: none).

Exit codes of `fit`: 0 converged, 3 did not converge, 130 interrupted (results are written in all three cases), 1 and 2
errors.
""",
)

ModelArgument = Annotated[
    str, typer.Argument(help="Python file and function: `FILE.py:function`. The file is executed.")
]
DataArgument = Annotated[Path, typer.Argument(help="NONMEM-style table (CSV or Parquet).")]
OutOption = Annotated[Path, typer.Option(help="Folder for the results.")]
EstimatorOption = Annotated[
    str, typer.Option(help="An estimator: foce, laplace, saem, nuts, ... (an unknown name lists them all).")
]
OptionOption = Annotated[
    list[str] | None, typer.Option("--option", help="An option of the estimator, `steps=2000`; repeat for more.")
]
InitOption = Annotated[
    list[str] | None, typer.Option("--init", help="A start value, `cl=3` or `omega=0.3,0.2`; repeat for more.")
]
FixedOption = Annotated[
    list[str] | None, typer.Option("--fixed", help="A parameter to hold at its start value; repeat for more.")
]
PriorsOption = Annotated[
    str | None,
    typer.Option(help="Priors: `FILE.py:name`, a dict of site to NumPyro distribution. The file is executed."),
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="A checkpoint file of the fit: the same command resumes from it.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Write over results that are in the folder.")]
PlateOption = Annotated[str, typer.Option(help="Name of the subject plate.")]
CovariateOption = Annotated[list[str] | None, typer.Option(help="A covariate column; repeat for more.")]
EndpointOption = Annotated[list[str] | None, typer.Option(help="An endpoint `name=DVID`; repeat for more.")]
InterpolationOption = Annotated[
    str | None,
    typer.Option(help="Which value a covariate that varies has between records: `nocb`, `locf`, `midpoint`."),
]
NaOption = Annotated[
    list[str] | None, typer.Option(help="A code of missing values, `-99` or `DV=-99` for one column; repeat for more.")
]
DecimalOption = Annotated[str, typer.Option(help="The decimal mark: `.` or `,`.")]
EvidOption = Annotated[str, typer.Option(help="What EVID means: `nonmem`, or `rxode` for codes such as 101.")]
RestartsOption = Annotated[
    str | None, typer.Option(help="A column of periods (OCC): where it changes, the clock starts anew.")
]
ColumnOption = Annotated[list[str] | None, typer.Option(help="A column's own name, `DV=conc`; repeat for more.")]


@app.command()
def demo(out: OutOption = Path("hierax-demo"), progress: bool = True) -> None:
    """Fit Theophylline by FOCE; print the table and write an HTML report with plots."""
    prepare()
    # The demonstration may overwrite the results of an earlier one.
    open_folder(out, force=True)
    import hierax as hx
    from hierax import demo as example

    print(f"Theophylline, one compartment with first-order absorption: {example.population()}\n")
    found = hx.fit(example.model, example.population(), hx.FOCE(), progress=progress)
    deliver(found, out, "Theophylline by FOCE")
    print(example.OTHER_OPTIMUM)
    raise typer.Exit(exit_code(found))


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
    na: NaOption = None,
    decimal: DecimalOption = ".",
    evid: EvidOption = "nonmem",
    restarts: RestartsOption = None,
    option: OptionOption = None,
    init: InitOption = None,
    fixed: FixedOption = None,
    priors: PriorsOption = None,
    starts: Annotated[int, typer.Option(help="Number of starts.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of further starts, draws and chains.", min=0)] = 0,
    checkpoint: CheckpointOption = None,
    resume: Annotated[bool, typer.Option(help="Whether to go on from the checkpoint where there is one.")] = True,
    plate: PlateOption = "subject",
    force: ForceOption = False,
    progress: bool = True,
) -> None:
    """Fit a model; write the fit, the summary, the table of records and an HTML report.

    The model file is executed.
    """
    prepare()
    import hierax as hx

    # Arguments that are quick to check are checked before the model and the data are loaded.
    chosen, start = named_estimator(estimator, option), start_values(init)
    path = named_in(model, "model")[0]
    open_folder(out, force)
    function = load_object(model, "model")
    pop = load_data(data, column, endpoint, covariate, interpolation, na, decimal, evid, restarts)
    given = None if priors is None else load_object(priors, "priors")
    with plain_errors(path):
        found = hx.fit(
            function, pop, chosen, init=start, fixed=fixed or None, priors=given, starts=starts, seed=seed,
            progress=progress, checkpoint=checkpoint, resume=resume, plate=plate,
        )  # fmt: skip
    deliver(found, out, f"{path.stem} by {found.estimator.label}")
    raise typer.Exit(exit_code(found))


@app.command()
def check(
    model: ModelArgument,
    data: DataArgument,
    covariate: CovariateOption = None,
    endpoint: EndpointOption = None,
    column: ColumnOption = None,
    interpolation: InterpolationOption = None,
    na: NaOption = None,
    decimal: DecimalOption = ".",
    evid: EvidOption = "nonmem",
    restarts: RestartsOption = None,
    plate: PlateOption = "subject",
) -> None:
    """Show what the engine makes of each site of a model, without fitting anything.

    The model file is executed.
    """
    prepare()
    import hierax as hx

    path = named_in(model, "model")[0]
    function = load_object(model, "model")
    pop = load_data(data, column, endpoint, covariate, interpolation, na, decimal, evid, restarts)
    with plain_errors(path):
        hx.check(function, pop, plate=plate)


def prepare() -> None:
    """Turn on float64 and the compilation cache on disk."""
    import jax

    jax.config.update("jax_enable_x64", True)
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = os.environ.get("HIERAX_CACHE", str(home / "hierax" / "jax"))
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def main() -> None:
    """Run the command line."""
    app()
