"""Whether the first line of a table names its columns."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

__all__ = ["match_columns", "plain_name"]

_JOINTS = re.compile(r"[\s_\-.]+")


def plain_name(cell: str) -> str:
    """Return a column's name without case and joints: "queryid" of "Query-ID" and "query_id"."""
    return _JOINTS.sub("", cell.strip().strip('"')).lower()


def match_columns(
    cells: Sequence[str], columns: Sequence[Collection[str]]
) -> tuple[int | None, ...]:
    """Return the place of each column in a header, None where no cell names it.

    Parameters
    ----------
    columns : the names that each column may have, as ``plain_name`` gives them.
    """
    plain = [plain_name(cell) for cell in cells]
    return tuple(
        next((place for place, name in enumerate(plain) if name in names), None)
        for names in columns
    )
