"""Masks over typed Arrow columns."""

import faiss
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc

from indexes.search.selection import select_rows
from indexes.storage.document_writer import arrow_schema, make_columns
from retrieval.errors import UsageError
from retrieval.filters import infer_schema, parse_filter, plan_filter

ROWS = [
    {"year": 2020, "lang": "en", "tags": '["a", "b"]', "score": -0.0, "day": "1970-01-02"},
    {"year": None, "lang": "de", "tags": "[]", "score": float("nan")},
    {"lang": None, "tags": '["b", "b"]', "score": float("-inf"), "mixed": 1},
    {"year": 1999, "mixed": "x", "nothing": None},
]
SCHEMA = infer_schema(ROWS)


def select(text, columns):
    return select_rows(plan_filter(parse_filter(text), SCHEMA), columns).tolist()


def test_columns_are_typed_and_what_is_no_value_is_null():
    columns = make_columns(ROWS, SCHEMA)
    assert columns.schema == arrow_schema(SCHEMA)
    assert columns.schema.names == ["year", "lang", "tags", "score", "day"]
    assert columns.to_pydict() == {
        "year": [2020, None, None, 1999],
        "lang": ["en", "de", None, None],
        "tags": [["a", "b"], None, ["b", "b"], None],
        "score": [0.0, None, -1.7976931348623157e308, None],
        "day": [86_400_000_000, None, None, None],
    }


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("year > 2000", [True, False, False, False]),
        ("not year > 2000", [False, True, True, True]),
        ("year == null", [False, True, True, False]),
        ("year == 0.5", [False, False, False, False]),
        ("nothing == null", [True, True, True, True]),
        ('tags contains "b"', [True, False, True, False]),
        ('lang in ["en", "de"] and score == 0', [True, False, False, False]),
        ('lang == "de" or score < 0', [False, True, True, False]),
        ('day < "1970-01-03"', [True, False, False, False]),
    ],
)
def test_masks_are_worked_by_hand(text, mask):
    assert select(text, make_columns(ROWS, SCHEMA)) == mask


def test_a_table_on_disk_is_read_batch_by_batch(tmp_path):
    path = tmp_path / "fields.arrow"
    with ipc.new_file(str(path), arrow_schema(SCHEMA)) as writer:
        for start in range(0, 4, 2):
            writer.write_batch(make_columns(ROWS[start : start + 2], SCHEMA))
    with pa.memory_map(str(path)) as stream:
        table = ipc.open_file(stream).read_all()
        assert table.column("tags").num_chunks == 2
        assert select('tags contains "b"', table) == [True, False, True, False]
        assert select("not year > 2000", table) == [False, True, True, True]


def test_a_slice_of_columns_counts_from_its_own_first_row():
    columns = make_columns(ROWS, SCHEMA).slice(1)
    assert select('tags contains "b"', columns) == [False, True, False]


def test_documents_without_fields_have_rows_all_the_same():
    schema = infer_schema([{"x": None}, {}])
    columns = make_columns([{"x": None}, {}], schema)
    plan = plan_filter(parse_filter("x == null"), schema)
    assert select_rows(plan, columns).tolist() == [True, True]
    assert select_rows(plan, pa.table({})).tolist() == []


def test_a_value_of_another_type_is_refused():
    with pytest.raises(UsageError, match="'year' is of type int, but a document holds 'x'"):
        make_columns([{"year": "x"}], SCHEMA)


def test_a_mask_is_a_faiss_selector():
    index = faiss.IndexFlatIP(1)
    index.add(np.array([[4.0], [3.0], [2.0], [1.0]], dtype=np.float32))
    mask = select_rows(
        plan_filter(parse_filter("year != null"), SCHEMA), make_columns(ROWS, SCHEMA)
    )
    selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    parameters = faiss.SearchParameters(sel=selector)
    _, rows = index.search(np.ones((1, 1), dtype=np.float32), 4, params=parameters)
    assert rows.tolist() == [[0, 3, -1, -1]]
