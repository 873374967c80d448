"""The rows that a search may return: not deleted, not blank, let through by a filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from indexes.storage.document_writer import ELEMENTS, arrow_schema, arrow_type, make_columns
from indexes.storage.files import damaged, reading
from indexes.storage.manifest import Manifest
from retrieval.errors import check_type
from retrieval.filters import Expression, Plan, Schema, parse_filter, plan_filter
from retrieval.filters.plan import AnyOf, Constant, Every, Inverse, Ordered, Present
from retrieval.protocols import Mask, Rows

Where: TypeAlias = Expression | str | None
"""A filter as text, or as ``parse_filter`` returns it; None lets everything through."""


@dataclass(frozen=True)
class Selection:
    """The rows that a search may return.

    Attributes
    ----------
    count : how many there are.
    mask : bool (N,) over all stored rows; None where every row may be returned.
    plan : the filter alone, deletions apart; None without a filter.
    """

    count: int
    mask: Mask | None = None
    plan: Plan | None = None


class RowTable:
    """The stored rows of an index: their typed fields, and which of them are deleted.

    Parameters
    ----------
    manifest : of the index.
    fields : the file that ``write_fields`` wrote; None where no document has fields.
    deleted : int64 row numbers, rising.
    blank : of the rows that hold no word, rising.

    Attributes
    ----------
    everything : the rows that are not deleted.
    meaningful : those of them that are not blank.

    Raises
    ------
    IndexCorruptError : the file is not what was written.
    """

    def __init__(
        self,
        manifest: Manifest,
        fields: Path | None,
        deleted: Rows,
        blank: Rows | None = None,
    ) -> None:
        self.rows = rows = manifest.rows
        self.deleted = deleted
        self._manifest = manifest
        self._path = fields
        self._live = live_rows(rows, deleted) if len(deleted) else None
        self.everything = Selection(rows - len(deleted), self._live)
        self._blank = np.setdiff1d(blank, deleted) if blank is not None else deleted[:0]
        self.meaningful = self._without_blank(self.everything)
        if fields is not None and len(self._table) != rows:
            raise damaged(fields, f"it has {len(self._table)} rows, the index {rows}")

    def select(self, where: Where) -> Selection:
        """Return the rows that may be found.

        Raises
        ------
        UsageError, UnknownNameError : the filter cannot be read, or does not fit the fields.
        """
        if where is None:
            return self.everything
        expected = "a text, such as 'year >= 2020', or what parse_filter returns"
        check_type("The filter", where, str | Expression, expected)
        plan = plan_filter(parse_filter(where) if isinstance(where, str) else where, self.schema)
        if self._path is None:
            # Without typed columns a filter says the same of every row.
            mask = np.repeat(select_rows(plan, make_columns([{}], self.schema)), self.rows)
        else:
            mask = select_rows(plan, self._table)
        if self._live is not None:
            mask = mask & self._live
        return Selection(int(np.count_nonzero(mask)), mask, plan)

    def narrow(self, selection: Selection) -> Selection:
        """Return the rows of a selection that a search by meaning may return: none is blank."""
        if selection is self.everything or selection is self.meaningful:
            return self.meaningful
        return self._without_blank(selection)

    def _without_blank(self, selection: Selection) -> Selection:
        if not len(self._blank):
            return selection
        allowed = selection.mask
        mask = np.ones(self.rows, np.bool_) if allowed is None else allowed.copy()
        mask[self._blank] = False
        return Selection(int(np.count_nonzero(mask)), mask, selection.plan)

    def columns(self, names: Sequence[str]) -> pa.Table | None:
        """Return these fields of all rows, null for deleted ones; None where one has no column."""
        known = self._path is not None and set(names) <= self.schema.types.keys()
        return self._table.select(list(names)) if known else None

    @cached_property
    def schema(self) -> Schema:
        """The types of the fields."""
        return self._manifest.schema

    @cached_property
    def _table(self) -> pa.Table:
        assert self._path is not None
        with reading(self._path):
            table = ipc.open_file(pa.memory_map(str(self._path))).read_all()
            if not table.schema.equals(arrow_schema(self.schema)):
                raise ValueError(f"its columns are {table.schema.names}")
            table.validate(full=True)  # Arrow would follow damaged offsets anywhere
        return table


def live_rows(rows: int, deleted: Rows) -> Mask:
    """Return bool (N,), False for deleted rows."""
    live = np.ones(rows, dtype=np.bool_)
    live[deleted] = False
    return live


def select_rows(plan: Plan, columns: pa.Table | pa.RecordBatch) -> Mask:
    """Return a bool array (N,), True for the rows of ``columns`` for which the plan holds.

    ``columns`` are those of ``make_columns`` for the schema that the plan was made with. A table
    is read one batch at a time, so that one on disk is never in memory as a whole.
    """
    batches = columns.to_batches() if isinstance(columns, pa.Table) else [columns]
    masks = [_select(plan, batch) for batch in batches]
    return np.concatenate(masks) if masks else np.zeros(0, dtype=np.bool_)


def _select(plan: Plan, batch: pa.RecordBatch) -> Mask:
    if isinstance(plan, Constant):
        return np.full(batch.num_rows, plan.holds)
    if isinstance(plan, Inverse):
        return ~_select(plan.term, batch)
    if isinstance(plan, Present):
        return _to_mask(pc.is_valid(batch.column(plan.field)))
    if isinstance(plan, AnyOf):
        return _match(plan, batch.column(plan.field))
    if isinstance(plan, Ordered):
        bound = pa.scalar(plan.value, arrow_type(plan.type))
        compare = pc.less_equal if plan.operator == "<=" else pc.greater_equal
        return _to_mask(compare(batch.column(plan.field), bound))
    combine = np.logical_and if isinstance(plan, Every) else np.logical_or
    mask = _select(plan.terms[0], batch)
    for term in plan.terms[1:]:
        combine(mask, _select(term, batch), out=mask)
    return mask


def _match(plan: AnyOf, column: Any) -> Mask:
    wanted = pa.array(plan.values, ELEMENTS[plan.type.element])
    if not plan.type.is_list:
        return _to_mask(pc.is_in(column, value_set=wanted))
    found = _to_mask(pc.is_in(pc.list_flatten(column), value_set=wanted))
    mask = np.zeros(len(column), dtype=np.bool_)
    mask[pc.list_parent_indices(column).to_numpy()[found]] = True
    return mask


def _to_mask(array: Any) -> Mask:
    """Return a boolean column as a writable array, with False for null."""
    filled: Mask = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    return np.array(filled, dtype=np.bool_)
