"""Advice about a cell that cannot be used, derived from its content."""

from __future__ import annotations

import re
from typing import Any

# Numbers that many tables have in place of a missing value.
_NINES = (99.0, 999.0, 9999.0, 99999.0, 999999.0)
MISSING_CODES = (-9.0, *(-code for code in _NINES), -77.0, -777.0, -88.0, -888.0, -98.0, -998.0, *_NINES, 777.0, 888.0)
_DECIMAL_COMMA = re.compile(r"^[+-]?\d*,\d+(?:[eE][+-]?\d+)?$")
# Texts for a value beyond a limit of quantification or detection, and for an unknown value.
_BELOW = re.compile(r"^(?:[<>].*|[AB]?B?[LQ]?LO?Q|BLOQ|BQL|BLQ|ALQ|LOQ|LLOQ|ULOQ|BLD|BDL|LOD|ND)$", re.IGNORECASE)
_NOTHING = re.compile(r"^(?:#?N/?A!?|NULL|NONE|NIL|NAN|MISSING|MISS|UNKNOWN|UNK|NR|NS|NQ|[-–—?*]+)$", re.IGNORECASE)


def remedy(column: str, value: Any) -> tuple[str, ...]:
    """Return further advice for a cell: one sentence, or nothing."""
    if isinstance(value, str):
        text = value.strip()
        if _DECIMAL_COMMA.match(text):
            return ("It is written with a decimal comma: read_nonmem(decimal=',') reads such numbers.",)
        if column == "DV" and _BELOW.match(text):
            return ("A value beyond a limit of quantification is CENS=1 (below; -1 above) with the limit in DV.",)
        if _NOTHING.match(text):
            return (f"If {text!r} means that nothing is known, say read_nonmem(na={{{column!r}: {text!r}}}).",)
    number = _number(value)
    if number in MISSING_CODES:
        return (f"If {number:g} means that nothing is known, say read_nonmem(na={{{column!r}: {number:g}}}).",)
    return ()


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
