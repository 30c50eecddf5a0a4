import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import hierax as hx
from hierax.cli import app

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


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("HIERAX_CACHE", "")


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
        (("check", "{}/absent.py:model", "{}/data.csv"), "is no model"),
        (("check", "{}/model.py:model", "{}/absent.csv"), "is not a file"),
        (("check", "{}/model.py:model", "{}/data.csv"), "no column ['DV']"),
        (("fit", "{}/model.py:model", "{}/data.csv", "--column", "DV=size", "--estimator", "nuts"), "is not known"),
    ],
)
def test_mistakes_get_a_message_and_no_traceback(files, arguments, text):
    out = run(*(argument.format(files) for argument in arguments))
    assert out.exit_code != 0
    assert text in " ".join(out.output.replace("│", " ").split())
    assert "Traceback" not in out.output


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
