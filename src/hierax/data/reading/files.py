"""Reading the text of a file, whose first bytes tell its compression, its encoding, or that it is not text."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

# First bytes of a compressed file → the function that decompresses it.
_UNPACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}
# Byte order marks and their encodings. UTF-32 comes first, because its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# First bytes of files that are not text, what such files are, and what the user can do.
_OTHERS = (
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)", "Give hx.read_nonmem(pd.read_excel(path)), or save it as CSV."),
    (b"ARROW1", "a Feather file", "Give hx.read_nonmem(pd.read_feather(path))."),
    (b"HEADER RECORD*******", "a SAS transport file", "Give hx.read_nonmem(pd.read_sas(path, format='xport'))."),
    (bytes(12) + b"\xc2\xea\x81\x60", "a SAS data set", "Give hx.read_nonmem(pd.read_sas(path, format='sas7bdat'))."),
    (b"$FL", "an SPSS file", "Give hx.read_nonmem(pd.read_spss(path))."),
    (b"<stata_dta>", "a Stata file", "Give hx.read_nonmem(pd.read_stata(path))."),
    (b"RDX", "an R data file", "Save the table from R with write.csv(table, 'data.csv', row.names=FALSE)."),
    (b"X\n\x00", "an R data file", "Save the table from R with write.csv(table, 'data.csv', row.names=FALSE)."),
    (b"\x89HDF", "an HDF5 file", "Give hx.read_nonmem(pd.read_hdf(path))."),
    (b"\x28\xb5\x2f\xfd", "a file packed by Zstandard", "Give an unpacked file, or one packed by gzip."),
    (b"SQLite format 3", "a database", "Give a data frame of one of its tables."),
    (b"%PDF", "a PDF document", "Give the table as CSV."),
)


def is_parquet(path: Path) -> bool:
    """Return whether a file begins as a Parquet file does, whatever its name."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def read_text(path: Path) -> str:
    """Return the text of a file, its lines ended by line feeds alone.

    The text may be UTF-8, UTF-16 or UTF-32, and is else read as Latin-1; gzip, bzip2 and xz are unpacked.

    Raises
    ------
    ValueError
        The file is not text; the message says what it is and what to do.
    """
    raw = _unpacked(path, path.read_bytes())
    _refuse_others(path, raw)
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), None) or _unmarked(raw)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The file {path} begins with the mark of {encoding} text, but cannot be read as such: {error}. Save it "
            f"as UTF-8."
        ) from None
    if "\0" in text:
        raise ValueError(
            f"The file {path} is not text, because it contains zero bytes. Give a table of delimited text (CSV), a "
            f"Parquet file, or a data frame."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unpacked(path: Path, raw: bytes) -> bytes:
    for mark, unpack in _UNPACK.items():
        if raw.startswith(mark):
            try:
                return unpack(raw)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise ValueError(f"The packed file {path} is damaged: {error}. Give it anew, or unpacked.") from None
    return raw


def _refuse_others(path: Path, raw: bytes) -> None:
    if raw.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        book = any(name.startswith("xl/") for name in names)
        what = "an Excel workbook" if book else f"a ZIP archive of {names[:5]}"
        advice = "Give hx.read_nonmem(pd.read_excel(path)), or save it as CSV." if book else "Unpack it first."
        raise ValueError(f"The file {path} is {what}, not a table of text. {advice}")
    for mark, what, advice in _OTHERS:
        if raw.startswith(mark):
            raise ValueError(f"The file {path} is {what}, not a table of text. {advice}")


def _unmarked(raw: bytes) -> str:
    """Return the encoding of text that does not begin with a byte order mark."""
    pairs = len(raw) // 2
    # In UTF-16, every second byte of plain letters and digits is 0.
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if pairs and raw[start::2].count(0) > 0.7 * pairs and raw[1 - start :: 2].count(0) == 0:
            return name
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        # Any bytes can be decoded as Latin-1.
        return "latin-1"
    return "utf-8"
