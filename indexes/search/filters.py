"""``select_rows``: the rows of an index that a filter lets through, from typed Arrow columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.filters.plan import AnyOf, Constant, Every, Inverse, Ordered, Plan, Present
from retrieval.filters.schema import FieldType, Schema
from retrieval.protocols import Mask
from retrieval.types import MetadataValue

__all__ = ["arrow_schema", "make_columns", "select_rows"]

_ELEMENTS = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "string": pa.large_string(),
    "date": pa.int64(),
}


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
