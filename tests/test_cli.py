import os
import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

import hierax as hx
from hierax.cli import app
from hierax.cli.arguments import load_object

MODEL = """
import numpyro, numpyro.distributions as dist
import hierax as hx

def model(pop):
    asym = numpyro.param("Asym", 180.0)
    sigma = numpyro.param("sigma", 10.0, constraint=dist.constraints.positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, 30.0))
        hx.observe("dv", dist.Normal((asym + eta) * pop.times / (1000 + pop.times), sigma), pop)
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    hx.datasets.load("orange").rename(columns={"DV": "size"}).to_csv(tmp_path / "data.csv", index=False)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_help_teaches():
    text = run("--help").output
    assert "hierax demo" in text
    assert "hierax check model.py:model data.csv" in text
    assert "--estimator" in run("fit", "--help").output


def test_fit_writes_everything(files):
    out = run(
        "fit",
        f"{files}/model.py:model",
        files / "data.csv",
        "--column",
        "DV=size",
        "--out",
        files / "out",
        "--no-progress",
    )
    assert out.exit_code == 0, out.output
    assert "Converged" in out.output
    assert sorted(path.name for path in (files / "out").iterdir()) == [
        "fit.hierax",
        "history.csv",
        "parameters.csv",
        "report.html",
        "table.csv",
    ]


def test_check_prints_the_sites(files):
    out = run("check", f"{files}/model.py:model", files / "data.csv", "--column", "DV=size")
    assert out.exit_code == 0
    assert "population parameter" in out.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("check", "{}/model.py:nothing", "{}/data.csv"), "has no 'nothing'; it has model"),
        (("check", "{}/absent.py:model", "{}/data.csv"), "must have the form FILE.py:model"),
        (("check", "{}/model.py:model", "{}/absent.csv"), "is not a file"),
        (("check", "{}/model.py:model", "{}/data.csv"), "no column ['DV']"),
        (("fit", "{}/model.py:model", "{}/data.csv", "--column", "DV=size", "--estimator", "nutz"), "is not known"),
    ],
)
def test_mistakes_get_a_message_and_no_traceback(files, arguments, text):
    out = run(*(argument.format(files) for argument in arguments))
    assert out.exit_code != 0
    assert text in " ".join(out.output.replace("│", " ").split())
    assert "Traceback" not in out.output


def fit(files, *more, model="model.py:model"):
    arguments = (f"{files}/{model}", files / "data.csv", "--column", "DV=size", "--no-progress")
    return run("fit", *arguments, "--out", files / "out", *more)


def plain(out):
    return " ".join(out.output.replace("│", " ").split())


def test_what_cannot_be_written_is_said_before_the_fit(files, monkeypatch):
    monkeypatch.setattr(hx, "fit", None)
    (files / "blocked").write_text("")
    out = fit(files, "--out", files / "blocked" / "out")
    assert out.exit_code == 2
    assert "cannot be written" in plain(out)
    (files / "out").mkdir()
    (files / "out" / "fit.hierax").write_text("somebody's")
    out = fit(files)
    assert out.exit_code == 2
    assert "holds results already (fit.hierax)" in plain(out)
    assert "--force" in plain(out)
    assert (files / "out" / "fit.hierax").read_text() == "somebody's"


# What is looked at is what the shell is told.
@pytest.mark.filterwarnings("ignore::hierax.HieraxWarning")
def test_exit_codes_and_outputs_of_fits_that_did_not_converge(files, monkeypatch):
    monkeypatch.setattr(hx, "report", lambda *_, **__: None)
    out = fit(files, "--estimator", "vi", "--option", "steps=100", "--seed", "3")
    assert out.exit_code in (0, 3), out.output
    pop = hx.read_nonmem(files / "data.csv", columns={"DV": "size"})
    again = hx.load_fit(files / "out" / "fit.hierax", _model(files), pop)
    assert (again.method, again.seed) == (hx.VI(steps=100), 3)
    assert out.exit_code == (0 if again.result is hx.Result.converged else 3)


@pytest.mark.filterwarnings("ignore::hierax.HieraxWarning")
def test_an_interrupted_fit_is_written_and_says_130(files, monkeypatch):
    from hierax.infer.marginal.session import Session

    calls = []

    def search(self, *args, **options):
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "search", search)
    out = fit(files)
    assert calls
    assert out.exit_code == 130, out.output
    assert (files / "out" / "fit.hierax").exists()


def _model(files):
    return load_object(f"{files}/model.py:model", "model")


def test_start_values_priors_and_checkpoints(files):
    more = "import numpyro.distributions as dist\npriors = {'Asym': dist.Normal(150.0, 0.01)}\n"
    (files / "priors.py").write_text(more)
    state = files / "state.ckpt"
    arguments = ("--init", "Asym=150", "--estimator", "map", "--priors", f"{files}/priors.py:priors")
    arguments = (*arguments, "--fixed", "sigma", "--checkpoint", state)
    out = fit(files, *arguments)
    assert state.exists(), out.output
    found = hx.load_fit(
        files / "out" / "fit.hierax",
        _model(files),
        hx.read_nonmem(files / "data.csv", columns={"DV": "size"}),
        priors={"Asym": load_object(f"{files}/priors.py:priors", "priors")["Asym"]},
    )
    assert found.params["Asym"] == pytest.approx(150.0, abs=0.1)
    assert found.params["sigma"] == pytest.approx(10.0)
    out = fit(files, *arguments, "--force", "--init", "Asym=140")
    assert out.exit_code == 1
    assert "Pass the same arguments to go on with it, another --checkpoint, or --no-resume" in plain(out)


def test_messages_speak_of_flags(files):
    out = fit(files, "--estimator", "joint-map", "--init", "Asymp=3")
    assert out.exit_code == 1
    assert "init names the site 'Asymp'" in plain(out)
    out = fit(files, "--estimator", "joint-map", "--force")
    assert "Pass them with (--priors" in plain(out)
    assert "--fixed" in plain(out)


def test_how_a_table_is_written_has_flags(files):
    """Semicolons, decimal commas, a code of missing values, and a clock that starts anew in each period."""
    table = pd.DataFrame(
        {
            "ID": 1,
            "TIME": [0.0, 1.5, 0.0, 1.5],
            "DV": [-99.0, 30.5, 20.0, 31.0],
            "OCC": [1, 1, 2, 2],
            "EVID": [2, 0, 0, 0],
        }
    )
    table.rename(columns={"DV": "size"}).to_csv(files / "data.csv", index=False, sep=";", decimal=",")
    flags = ["--column", "DV=size", "--na", "size=-99", "--restarts", "OCC", "--decimal", ","]
    out = run("check", f"{files}/model.py:model", files / "data.csv", *flags)
    assert out.exit_code == 0, out.output
    assert "1 subjects, 3 observations" in out.output
    out = run("check", f"{files}/model.py:model", files / "data.csv", *flags[:6])
    assert out.exit_code == 1
    assert "--decimal ','" in plain(out)
    out = run("check", f"{files}/model.py:model", files / "data.csv", "--na", "-99", "--na", "DV=7")
    assert "--na names a column for some codes" in plain(out)


def test_a_model_that_raises_shows_its_own_lines(files):
    (files / "broken.py").write_text(MODEL + "    raise RuntimeError('no such compartment')\n")
    out = fit(files, model="broken.py:model")
    assert out.exit_code == 1
    assert "raise RuntimeError('no such compartment')" in out.output
    assert "RuntimeError: no such compartment" in out.output
    assert len(out.output.splitlines()) < 12, out.output
    (files / "unfinished.py").write_text("def model(pop:\n")
    out = fit(files, "--force", model="unfinished.py:model")
    assert "SyntaxError" in out.output
    assert "fault of hierax" not in out.output
    (files / "script.py").write_text("raise SystemExit(0)\n")
    out = fit(files, "--force", model="script.py:model")
    assert out.exit_code == 2
    assert "ends the program (exit code 0)" in plain(out)
    (files / "wrong.py").write_text("1 / 0\n")
    out = fit(files, "--force", model="wrong.py:model")
    assert "ZeroDivisionError: division by zero" in out.output
    assert len(out.output.splitlines()) < 8


def test_a_fault_of_the_library_keeps_its_traceback(files, monkeypatch):
    import hierax.infer.marginal.session as module

    def fault(*_, **__):
        return list(zip([1], [], strict=True))

    monkeypatch.setattr(module.Session, "search", fault)
    out = fit(files)
    assert isinstance(out.exception, ValueError)
    assert "This is a fault of hierax" in out.output


def test_a_report_that_fails_costs_the_report_alone(files, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(hx, "report", broken)
    out = fit(files)
    assert out.exit_code == 0
    assert "report.html could not be made (RuntimeError: no fonts)" in plain(out)
    assert (files / "out" / "fit.hierax").exists()


def test_help_says_that_the_model_is_executed():
    assert "file is executed" in " ".join(run("--help").output.split())
    assert "executed" in run("fit", "--help").output


@pytest.mark.slow
def test_demo(tmp_path):
    environment = {**os.environ, "HIERAX_CACHE": str(tmp_path / "cache")}
    for _ in range(2):
        command = [sys.executable, "-m", "hierax.cli", "demo", "--out", str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert "OFV 116.8034" in done.stdout
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000
    assert any((tmp_path / "cache").iterdir())


def test_importing_hierax_does_not_import_the_solvers_of_others():
    """They take a fifth of the import's time, and most models have no ODE."""
    code = "import sys, hierax; print([name for name in ('diffrax', 'optimistix') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
