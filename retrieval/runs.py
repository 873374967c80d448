"""Ids in TREC files, whose columns are separated by blanks."""

from __future__ import annotations

from urllib.parse import quote


class RunIds:
    """Writes ids without blanks, no two alike.

    Attributes
    ----------
    first : the first that was not written as it is; None while there is none.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self._ids: dict[str, str] = {}
        """Those with a percent sign, as they are written, which another id may already be."""

    def __call__(self, identifier: str) -> str:
        """Return how an id is written: as it is, or with its blanks as in a URL."""
        blank = identifier.split() != [identifier]
        if not blank and "%" not in identifier:
            return identifier
        written = identifier
        if blank:
            written = "".join(quote(c) if c.isspace() or c == "%" else c for c in identifier)
        while self._ids.setdefault(written, identifier) != identifier:
            written = written.replace("%", "%25")
        if self.first is None and written != identifier:
            self.first = written
        return written

    def describe(self) -> str:
        """Return what a reader of the file has to know where ``first`` is there."""
        return (
            f"The columns of a TREC run are separated by blanks, so ids with blanks are written "
            f"as in a URL, and so is an id that would be taken for one of them; the first is "
            f"{self.first}."
        )
