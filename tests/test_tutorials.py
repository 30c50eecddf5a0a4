import os
import runpy
import warnings
from pathlib import Path

import pytest

import hierax as hx

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.py"))


# Those that train networks, or run many estimators or designs, take a minute or two.
LONG = (
    "02_dosing",
    "03_mechanism_to_ude",
    "04_estimators",
    "05_deep_nlme",
    "06_generative_models",
    "07_random_effects",
    "08_words_and_images",
)
PARAMETERS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in LONG else []) for path in TUTORIALS
]


# What a tutorial may warn of, for its text says what the warning means.
WARNS = {
    "05_deep_nlme": "the search of a network ends at its limit; importance weights with a heavy tail",
    "07_random_effects": "the penalty that was chosen is the last of its list, beside others that are as good",
}


@pytest.mark.parametrize("path", PARAMETERS)
def test_tutorial_runs(path, tmp_path, capsys):
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        with warnings.catch_warnings():
            if path.stem in WARNS:
                warnings.simplefilter("always", hx.HieraxWarning)
            ends = runpy.run_path(str(path), run_name="__main__")
    finally:
        os.chdir(here)
    printed = capsys.readouterr().out
    # Every fit says how it ended, not one of them alone; a fit may have several names.
    ends = [fit.result.name for fit in {id(fit): fit for fit in every_fit(list(ends.values()))}.values()]
    assert ends
    said = printed.lower().count("converged") + printed.count("Mixed:")
    assert said >= ends.count("converged")
    assert not [name for name in ends if name not in printed and name != "converged"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_no_tutorial_silences_warnings(path):
    text = path.read_text()
    for word in ("simplefilter", "filterwarnings", "catch_warnings"):
        assert word not in text


def every_fit(values):
    """Yield the fits among objects, and in lists and dicts of them."""
    for value in values:
        if isinstance(value, hx.Fit):
            yield value
        elif isinstance(value, dict | list | tuple):
            yield from every_fit(value.values() if isinstance(value, dict) else value)


def test_the_model_of_the_readme_runs(tmp_path, capsys):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    finally:
        os.chdir(here)
    assert "OFV 116.80341" in capsys.readouterr().out
    assert (tmp_path / "report.html").is_file()
