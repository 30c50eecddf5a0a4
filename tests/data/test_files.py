"""Files: encodings, packing, decimal commas, and files that are no tables of text."""

import bz2
import gzip
import lzma
import zipfile

import pandas as pd
import pytest

import hierax as hx

TEXT = "ID,TIME,DV,AMT,SITE\n1,0,.,100,Zürich\n1,1.5,5,0,Zürich\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_text_in_any_encoding_packed_or_not(tmp_path, encoding, pack):
    path = tmp_path / "data.csv"
    path.write_bytes(pack(TEXT.replace("\n", "\r\n").encode(encoding)))
    pop = hx.read_nonmem(path, covariates=["SITE"])
    assert pop.times.tolist() == [[0.0, 1.5]]
    assert pop.labels["SITE"] == ("Zürich",)


def workbook(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "x")


def archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.csv", TEXT)


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (workbook, r"is an Excel workbook.*pd.read_excel\(path\)"),
        (archive, r"is a ZIP archive of \['data.csv'\].*Unpack it first"),
        (lambda path: path.write_bytes(gzip.compress(TEXT.encode())[:-20]), "The packed file .* is damaged"),
        (lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(50)), r"Excel workbook \(.xls\)"),
        (lambda path: path.write_bytes(b"HEADER RECORD*******LIBRARY"), "SAS transport file.*pd.read_sas"),
        (lambda path: path.write_bytes(gzip.compress(b"RDX3\nX\n")), "R data file.*write.csv"),
        (lambda path: path.write_bytes(b"ID,TIME\x00\x01\x02"), "contains zero bytes"),
        (
            lambda path: path.write_bytes(b"\xff\xfeI\x00D"),
            "begins with the mark of utf-16 text, but cannot be read as such",
        ),
    ],
)
def test_files_that_are_no_tables_of_text(tmp_path, write, text):
    path = tmp_path / "data.csv"
    write(path)
    with pytest.raises(ValueError, match=text):
        hx.read_nonmem(path)


def test_parquet_under_another_name(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "data.csv"
    pd.DataFrame({"ID": [1, 1], "TIME": [0.0, 1], "DV": [1.0, 2]}).to_parquet(path)
    assert hx.read_nonmem(path).times.tolist() == [[0.0, 1.0]]


def test_decimal_commas_are_named_and_read_on_request(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("ID;TIME;DV;WT (kg, dry)\n1;0;1;70,5\n1;1,5;2,25;70,5\n")
    with pytest.raises(hx.DataError, match=r"value '1,5': TIME must be .*read_nonmem\(decimal=','\)"):
        hx.read_nonmem(path)
    options = {"covariates": ["WT"], "columns": {"WT": "WT (kg, dry)"}}
    for source in (path, pd.read_csv(path, sep=";")):
        pop = hx.read_nonmem(source, decimal=",", **options)
        assert pop.times.tolist() == [[0.0, 1.5]]
        assert pop.dv["dv"].tolist() == [[1.0, 2.25]]
        assert pop.covariates["WT"].item() == 70.5
    with pytest.raises(ValueError, match="must be a decimal mark"):
        hx.read_nonmem(path, decimal=";")


@pytest.mark.parametrize(
    "dates",
    [
        [20200313.0, 20200314.0],
        [3.0, 4.0],
        ["20200313.0", "20200314.0"],
        ["2020-03-13 00:00:00", "2020-03-14 00:00:00"],
        [pd.Timestamp("2020-03-13"), pd.Timestamp("2020-03-14")],
    ],
)
@pytest.mark.parametrize("dtype", [None, object])
def test_dates_as_pandas_reads_them(dates, dtype):
    table = pd.DataFrame({"ID": 1, "TIME": 0.0, "DV": [1.0, 2.0], "DATE": pd.Series(dates, dtype=dtype)})
    assert hx.read_nonmem(table).times.tolist() == [[0.0, 24.0]]


def test_dates_that_are_none_or_not_there():
    table = pd.DataFrame({"ID": 1, "TIME": 0.0, "DV": [1.0, 2.0], "DATE": [20201313.0, None]})
    with pytest.raises(hx.DataError, match=r"value '20201313': DATE must be a date[\s\S]*the row has no DATE"):
        hx.read_nonmem(table)
    with pytest.warns(hx.DataWarning, match="all dates of the table could be YYMMDD"):
        hx.read_nonmem(table.assign(DATE=[200331, 200401]))


def test_spans_of_time():
    hours = pd.to_timedelta([0, 90], unit="min")
    table = pd.DataFrame({"ID": 1, "TIME": hours, "DV": [1.0, 2.0]})
    assert hx.read_nonmem(table).times.tolist() == [[0.0, 1.5]]
    assert hx.read_nonmem(table, units={"TIME": "min"}).times.tolist() == [[0.0, 90.0]]
    with pytest.raises(hx.DataError, match="DV must be a finite number"):
        hx.read_nonmem(table.assign(TIME=[0.0, 1.0], DV=hours))
