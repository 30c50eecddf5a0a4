import os
import runpy
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("path", PARAMETERS)
def test_tutorial_runs(path, tmp_path, capsys):
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        os.chdir(here)
    assert "Converged" in capsys.readouterr().out


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
