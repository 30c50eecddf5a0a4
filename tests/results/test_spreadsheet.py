import pandas as pd
import pytest

from hierax.results.tables.spreadsheet import harmless, write_csv


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "-1+2"])
def test_formulas_become_text(text):
    assert harmless(text) == "'" + text


@pytest.mark.parametrize("value", ["-1", "+5", "-1e-3", "S-01", "a=b", 3.0, -3.0, None])
def test_all_else_stays(value):
    assert harmless(value) is value


def test_ids_covariates_and_headings_are_written_as_text(tmp_path):
    frame = pd.DataFrame({"ID": ["=cmd()", "2"], "DV": [-1.5, 2.0], "=X": ["@a", "b"]}, index=["-row", "other"])
    write_csv(frame, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines == [",ID,DV,'=X", "'-row,'=cmd(),-1.5,'@a", "other,2,2.0,b"]
