import numpy as np
import pandas as pd
import pytest

import hierax as hx

TABLE = pd.DataFrame(
    {"ID": [1, 1, 2, 2], "TIME": [0.0, 1.5, 0.0, 2.0], "DV": [np.nan, 5.0, np.nan, 4.0], "AMT": [100.0, 0, 50, 0]}
)
EXPECTED = [[0.0, 1.5], [0.0, 2.0]]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
def test_separators(tmp_path, separator):
    path = tmp_path / "data.txt"
    TABLE.to_csv(path, sep=separator, index=False, na_rep=".")
    pop = hx.read_nonmem(path)
    assert pop.times.tolist() == EXPECTED
    assert hx.read_nonmem(str(path)).dv["dv"].tolist() == [[0.0, 5.0], [0.0, 4.0]]


def test_comments_empty_lines_and_rows_in_messages(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("# from the clinic\n#ID,TIME,DV,AMT\n1,0,.,100\n\n1,1.5,five,.\n2,0,.,50\n2,2,4,.\n")
    with pytest.raises(hx.DataError, match="row 5, ID 1, column DV, value 'five'"):
        hx.read_nonmem(path)
    path.write_text(path.read_text().replace("five", "5"))
    assert hx.read_nonmem(path).times.tolist() == EXPECTED


def test_files_without_a_header_or_with_a_name_twice_or_too_many_cells(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("\n")
    with pytest.raises(ValueError, match="has no header line"):
        hx.read_nonmem(path)
    path.write_text("ID,TIME,DV,DV\n1,0,1,2\n")
    with pytest.raises(ValueError, match=r"more than one column named \['DV'\]"):
        hx.read_nonmem(path)


def test_a_table_that_nonmem_has_written(tmp_path):
    path = tmp_path / "sdtab1"
    lines = [
        "TABLE NO.  1",
        " ID          TIME        DV",
        *(f"  1.0E+00  {time:.4E}  2.5000E+00" for time in (0, 1.5)),
    ]
    path.write_text("\n".join(lines) + "\n")
    pop = hx.read_nonmem(path)
    assert pop.times.tolist() == [[0.0, 1.5]]
    assert pop.dv["dv"].tolist() == [[2.5, 2.5]]
    # NONMEM repeats title and names of a long table.
    path.write_text("\n".join([*lines, *lines[:2], "  2.0E+00  0.0E+00  3.0E+00"]) + "\n")
    assert hx.read_nonmem(path).n_observations == 3
    path.write_text("\n".join([*lines, "TABLE NO.  2", *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match="several tables of NONMEM"):
        hx.read_nonmem(path)


def test_dates_without_a_year_over_its_turn_ask_for_it():
    frame = pd.DataFrame({"ID": 1, "DATE": ["12-31", "01-01"], "TIME": ["8:00", "8:00"], "DV": [1.0, 2.0]})
    with pytest.raises(hx.DataError, match="write DATE with its year, if the year has turned"):
        hx.read_nonmem(frame)
    pop = hx.read_nonmem(frame.assign(DATE=["12-31-2019", "01-01-2020"]))
    assert pop.times.tolist() == [[0.0, 24.0]]


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "data.parquet"
    TABLE.to_parquet(path)
    assert hx.read_nonmem(path).times.tolist() == EXPECTED


def test_frames_of_other_libraries():
    polars = pytest.importorskip("polars")
    frame = polars.from_dict(TABLE.to_dict("list"))
    assert hx.read_nonmem(frame).times.tolist() == EXPECTED
    assert hx.read_nonmem(frame.lazy()).times.tolist() == EXPECTED
    pyarrow = pytest.importorskip("pyarrow")
    assert hx.read_nonmem(pyarrow.Table.from_pydict(TABLE.to_dict("list"))).times.tolist() == EXPECTED


def test_mdv_100_leaves_an_observation_out_of_estimation_but_not_out_of_the_table():
    table = pd.DataFrame({"ID": 1, "TIME": [0.0, 1, 2], "DV": [np.nan, 5, 4], "AMT": [9.0, 0, 0], "MDV": [1, 100, 0]})
    pop = hx.read_nonmem(table)
    assert pop.mask["dv"].tolist() == [[False, False, True]]
    again = pop.to_frame()
    assert again["MDV"].tolist() == [1, 100, 0]
    assert again["DV"].tolist()[1] == 5.0


def test_compartments_by_name():
    names = {"depot": 1, "central": 2}
    pop = hx.read_nonmem(TABLE.assign(CMT=["central", ".", "depot", "."]), compartments=names)
    assert pop.events.compartment.tolist() == [[2], [1]]
    assert pop.compartment_names == (("depot", 1), ("central", 2))
    assert pop.to_frame()["CMT"].tolist() == [2, 0, 1, 0]
    by_endpoint = hx.read_nonmem(
        TABLE.assign(CMT=["depot", "central"] * 2), compartments=names, endpoints={"cp": "central"}
    )
    assert by_endpoint.n_observations == 2


def test_comment_rows_are_left_out_and_counted(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("ID,TIME,DV,AMT\n1,0,.,100\n#2,0,.,50\n1,1.5,5,.\n#3,0,4,x\n2,0,.,50\n2,two,4,.\n")
    with pytest.raises(hx.DataError, match="row 7, ID 2, column TIME, value 'two'"):
        hx.read_nonmem(path)
    path.write_text(path.read_text().replace("two", "2"))
    pop = hx.read_nonmem(path)
    assert pop.ids == (1, 2)
    assert pop.times.tolist() == EXPECTED
    path.write_text("C,ID,TIME,DV\n.,1,0,1\nC,1,1,x\n.,1,2,3\n")
    assert hx.read_nonmem(path).times.tolist() == [[0.0, 2.0]]


def test_rows_with_more_cells_than_names(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("ID,TIME,DV\n1,0,5,4\n1,1,3,7\n")
    with pytest.raises(ValueError, match=r"Row 2 of .* has more cells than the header's 3 names.*decimal commas"):
        hx.read_nonmem(path)
    path.write_text("ID,TIME,DV,\n1,0,5,\n1,1,3,\n")
    assert hx.read_nonmem(path).times.tolist() == [[0.0, 1.0]]


def test_other_encodings(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes("ID,TIME,DV,SITE\n1,0,5,Zürich\n1,1,3,Zürich\n".encode("latin-1"))
    assert hx.read_nonmem(path, covariates=["SITE"]).labels["SITE"] == ("Zürich",)
