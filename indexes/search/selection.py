"""The rows of an index: which a search may return, and the typed fields that filters read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from indexes.storage.documents import DocumentStore
from indexes.storage.files import damaged, reading
from retrieval.errors import DuplicateIdError
from retrieval.filters import Expression, Plan, Schema, SchemaBuilder, parse_filter, plan_filter
from retrieval.filters.plan import AnyOf, Constant, Every, Inverse, Ordered, Present
from retrieval.filters.schema import FieldType
from retrieval.protocols import Mask, Rows
from retrieval.types import MetadataValue

__all__ = [
    "BLANK_NAME",
    "DELETED_NAME",
    "FIELDS_NAME",
    "RowTable",
    "Selection",
    "Where",
    "arrow_schema",
    "check_unique_ids",
    "hash_all_ids",
    "hash_ids",
    "infer_fields",
    "live_rows",
    "make_columns",
    "select_rows",
    "write_fields",
]

FIELDS_NAME = "fields.arrow"
DELETED_NAME = "deleted.npy"
BLANK_NAME = "blank.npy"

_ELEMENTS = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "string": pa.large_string(),
    "date": pa.int64(),
}

Hashes: TypeAlias = npt.NDArray[np.uint64]
"""Of ids, 64 bits each, the same within this process only."""

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
    rows : N, deleted ones included.
    schema : of the fields.
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
        rows: int,
        schema: Schema,
        fields: Path | None,
        deleted: Rows,
        blank: Rows | None = None,
    ) -> None:
        self.rows = rows
        self.deleted = deleted
        self.schema = schema
        self._path = fields
        self._live = live_rows(rows, deleted)
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
    def _table(self) -> pa.Table:
        assert self._path is not None
        with reading(self._path):
            table = ipc.open_file(pa.memory_map(str(self._path))).read_all()
            if not table.schema.equals(arrow_schema(self.schema)):
                raise ValueError(f"its columns are {table.schema.names}")
            table.validate(full=True)  # Arrow would follow damaged offsets anywhere
        return table


def live_rows(rows: int, deleted: Rows) -> Mask | None:
    """Return bool (N,), False for deleted rows; None where all are live."""
    if not len(deleted):
        return None
    live = np.ones(rows, dtype=np.bool_)
    live[deleted] = False
    return live


def infer_fields(documents: DocumentStore, live: Mask | None) -> Schema:
    """Return the type of every metadata field of the documents that are not deleted."""
    builder = SchemaBuilder()
    for rows in _live_metadata(documents, live):
        for metadata in rows:
            if metadata:
                builder.add(metadata)
    return builder.build()


def write_fields(documents: DocumentStore, live: Mask | None, schema: Schema, path: Path) -> bool:
    """Write the fields of all rows as typed columns, a batch at a time; False where none has any.

    Deleted rows have no values.

    Raises
    ------
    OSError : the disk refuses.
    """
    if not schema.types:
        return False
    with path.open("wb") as stream, ipc.new_file(stream, arrow_schema(schema)) as writer:
        for rows in _live_metadata(documents, live):
            writer.write_batch(make_columns(rows, schema))
    return True


def _live_metadata(
    documents: DocumentStore, live: Mask | None
) -> Iterator[list[Mapping[str, MetadataValue]]]:
    """Yield the metadata of all rows in order, a batch at a time; nothing for deleted ones."""
    start = 0
    for rows in documents.iterate_metadata():
        if live is not None:
            part = live[start : start + len(rows)].tolist()
            rows = [row if keep else {} for row, keep in zip(rows, part, strict=True)]
        yield rows
        start += len(rows)


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the columns of the fields that can be filtered, in the schema's order.

    A date is int64, microseconds since 1970 in UTC. Fields that cannot be filtered have no column.
    """
    return pa.schema([pa.field(name, _arrow_type(kind)) for name, kind in schema.types.items()])


def make_columns(rows: Iterable[Mapping[str, MetadataValue]], schema: Schema) -> pa.RecordBatch:
    """Return the metadata of some documents as typed columns, one row per document.

    Missing, null, NaN and the empty list are null; an infinite number is the largest float64.

    Raises
    ------
    UsageError : a value is not of its field's type.
    """
    columns = arrow_schema(schema)
    values: dict[str, list[Any]] = {name: [] for name in columns.names}
    count = 0
    for metadata in rows:
        count += 1
        for name, column in values.items():
            column.append(schema.read(metadata, name))
    if not values:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))
    arrays = [pa.array(values[column.name], column.type) for column in columns]
    return pa.record_batch(arrays, schema=columns)


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
        bound = pa.scalar(plan.value, _arrow_type(plan.type))
        compare = pc.less_equal if plan.operator == "<=" else pc.greater_equal
        return _to_mask(compare(batch.column(plan.field), bound))
    combine = np.logical_and if isinstance(plan, Every) else np.logical_or
    mask = _select(plan.terms[0], batch)
    for term in plan.terms[1:]:
        combine(mask, _select(term, batch), out=mask)
    return mask


def _match(plan: AnyOf, column: Any) -> Mask:
    wanted = pa.array(plan.values, _ELEMENTS[plan.type.element])
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


def _arrow_type(kind: FieldType) -> pa.DataType:
    element = _ELEMENTS[kind.element]
    return pa.large_list(element) if kind.is_list else element


def check_unique_ids(store: DocumentStore, *, source: str, live: Mask | None = None) -> None:
    """Raise DuplicateIdError if two documents share an id, naming both records.

    Needs 9 bytes of memory a document: ids are compared by a 64-bit hash first, and only where
    hashes agree are the ids themselves read again. Rows for which ``live`` is False do not count.
    """
    hashes = hash_all_ids(store)
    if live is not None:
        hashes = hashes[live]
    hashes.sort()
    shared = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(shared):
        return
    seen: dict[str, int] = {}
    start = 0
    for ids in store.iterate_ids():
        suspects = np.flatnonzero(np.isin(hash_ids(ids), shared))
        for place in suspects.tolist():
            row, doc_id = start + place, ids[place]
            if live is not None and not live[row]:
                continue
            if doc_id in seen:
                problem = f"id {doc_id!r} is already the id of record {seen[doc_id] + 1}"
                raise DuplicateIdError(source, row + 1, problem)
            seen[doc_id] = row
        start += len(ids)


def hash_ids(doc_ids: Iterable[str]) -> Hashes:
    """Return uint64 (n,), a 64-bit hash of each id, the same within this process only."""
    return np.fromiter(map(hash, doc_ids), np.int64).view(np.uint64)


def hash_all_ids(store: DocumentStore, key: Callable[[str], str] = str) -> Hashes:
    """Return uint64 (N,), a 64-bit hash of the id of each row, or of what ``key`` makes of it."""
    hashes = np.empty(len(store), dtype=np.uint64)
    row = 0
    for ids in store.iterate_ids():
        hashes[row : row + len(ids)] = hash_ids([key(one) for one in ids])
        row += len(ids)
    return hashes
