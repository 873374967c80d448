"""Every backend against the reference meaning: Arrow masks, Qdrant's client, Qdrant's engine."""

import json
import math
import operator
import shutil
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes.backends.qdrant.filters import (
    ROOT,
    list_payload_indexes,
    make_edge_filter,
    make_filter,
    make_payload,
)
from indexes.backends.qdrant.points import ClientFields
from indexes.search.selection import select_rows
from indexes.storage.document_writer import make_columns
from retrieval import Document
from retrieval.filters import evaluate_filter, infer_schema, parse_filter, plan_filter
from retrieval.filters.tree import And, Compare, Contains, Member, Not, Or

NAMES = ["year", "a.b", "x[0]", 'quo"te', "per%22cent", "ünï", "not", "back`tick", ""]

EDGES = [0, 9 * 10**14, 2**53, 2**54, 2**62, 2**63, 2**64]
"""Where whole numbers begin to be read, rounded or kept otherwise."""

NEAR = sorted(
    {s * (e + n) for e in EDGES for n in (-1025, -1024, *range(-3, 4), 512) for s in (1, -1)}
)
INTS = st.sampled_from([number for number in NEAR if -(2**63) <= number < 2**63])
FLOATS = (
    st.sampled_from(
        [0.0, -0.0, 0.5, 3.0, 2.0**53, -(2.0**63), 5e-324, 1.7e308, -math.inf, math.inf, math.nan]
    )
    | st.floats()
)
TEXTS = st.sampled_from(
    [
        "",
        "en",
        "EN",
        "true",
        "3",
        "[",
        "[]",
        "né",
        "ne\u0301",
        "\U0001f600",
        '"',
        "\\",
        "a\nb",
        "\0",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
DATES = st.sampled_from(
    [
        "0001-01-01",
        "2020-02-29",
        "2020-02-29T00:00+00:00",
        "2020-02-28T23:30-00:30",
        "2020-02-29T00:00:00.000001Z",
        "9999-12-31T23:59:59.999999Z",
        "1969-12-31 23:59:59.5",
    ]
)
LISTS = st.one_of(
    st.lists(st.sampled_from(["en", "de", "2020-02-29", "é", ""]) | st.none(), max_size=3),
    st.lists(st.sampled_from([0, 1, 2**53 + 1, None]), max_size=3),
    st.lists(st.sampled_from([0.5, 3, None, -0.0]), max_size=3),
    st.lists(st.booleans(), max_size=2),
).map(json.dumps)
# A field of floats and of whole numbers that no float is cannot be filtered.
BOTH = FLOATS | INTS.filter(lambda number: int(float(number)) == number)
KINDS = [INTS, FLOATS, BOTH, TEXTS, DATES, DATES | TEXTS, st.booleans(), LISTS]

WIDE = st.sampled_from([*NEAR, 2**70, -(10**400), 10**400, 2.5, 1e300, 2**60 + 1, 0.1])
LITERALS = {
    "int": INTS | WIDE | FLOATS.filter(math.isfinite),
    "float": INTS | WIDE | FLOATS.filter(math.isfinite),
    "string": TEXTS,
    "date": DATES,
    "bool": st.booleans(),
}


@st.composite
def corpora(draw):
    """Draw the metadata of a few documents: each field of one kind, often null or missing."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    names = draw(st.permutations(NAMES))[: len(kinds)]
    cells = [kind | st.none() for kind in kinds]
    rows = []
    for _ in range(draw(st.integers(1, 8))):
        row = {name: draw(cell) for name, cell in zip(names, cells, strict=True)}
        missing = draw(st.sets(st.sampled_from(names), max_size=2))
        rows.append({name: value for name, value in row.items() if name not in missing})
    return rows


def leaves(name, kind):
    nulls = st.builds(Compare, st.just(name), st.sampled_from(["==", "!="]), st.none())
    if kind is None:
        return nulls
    literal = LITERALS[kind.element]
    if kind.is_list:
        if kind.element == "string":
            literal = st.sampled_from(["en", "de", "2020-02-29", "é", "", "x"])
        return nulls | st.builds(Contains, st.just(name), literal)
    operators = ["==", "!="]
    if kind.element in ("int", "float", "date"):
        operators += ["<", "<=", ">", ">="]
    values = st.lists(literal | st.none(), max_size=4).map(tuple)
    return st.one_of(
        nulls,
        st.builds(Compare, st.just(name), st.sampled_from(operators), literal),
        st.builds(Member, st.just(name), values, st.booleans()),
    )


def expressions(schema):
    every = st.one_of([leaves(name, schema.type_of(name)) for name in schema.kinds])

    def combine(inner):
        terms = st.lists(inner, min_size=2, max_size=3).map(tuple)
        return st.builds(And, terms) | st.builds(Or, terms) | st.builds(Not, inner)

    return st.recursive(every, combine, max_leaves=6)


@st.composite
def cases(draw, filters=4):
    """Draw rows and a few filters over them, with the rows that the reference lets through."""
    rows = draw(corpora().filter(lambda rows: any(rows)))
    schema = infer_schema(rows)
    trees = draw(st.lists(expressions(schema), min_size=1, max_size=filters))
    found = [
        [n for n, holds in enumerate(evaluate_filter(tree, schema, rows)) if holds]
        for tree in trees
    ]
    return rows, schema, trees, found


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
quick = settings(max_examples=40, deadline=None, suppress_health_check=QUIET)


def search_arrow(rows, schema, trees, folder=None):
    columns = make_columns(rows, schema)
    masks = [select_rows(plan_filter(tree, schema), columns) for tree in trees]
    assert {(mask.dtype, mask.shape) for mask in masks} == {(np.dtype(np.bool_), (len(rows),))}
    return [np.flatnonzero(mask).tolist() for mask in masks]


def search_client(rows, schema, trees, folder):
    qdrant = pytest.importorskip("qdrant_client", reason="the qdrant extra is not installed")
    models = qdrant.models
    client = qdrant.QdrantClient(":memory:")
    distance = models.VectorParams(size=2, distance=models.Distance.COSINE)
    client.create_collection("test", vectors_config=distance)
    points = [
        models.PointStruct(id=n, vector=[1.0, 0.0], payload={ROOT: make_payload(row, schema)})
        for n, row in enumerate(rows)
    ]
    client.upsert("test", points)
    found = []
    for tree in trees:
        condition = models.Filter(**make_filter(plan_filter(tree, schema)))
        records, _ = client.scroll("test", scroll_filter=condition, limit=1000)
        found.append(sorted(record.id for record in records))
    client.close()
    return found


class OwnFields:
    """The payload that only millpond reads."""

    def make_payload(self, document, schema):
        return {ROOT: make_payload(document.metadata, schema)}

    def move_paths(self, condition, schema):
        return condition

    def list_indexes(self, schema):
        return list_payload_indexes(schema)


CLIENTS = ClientFields("page_content", "metadata")


def search_engine(
    rows,
    schema,
    trees,
    folder,
    *,
    indexed=False,
    read=lambda value: value,
    clients=OwnFields(),  # noqa: B008
):
    edge = pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(2, edge.Distance.Cosine))
    shard = edge.EdgeShard.create(str(folder), config)
    points = [
        edge.Point(n, [1.0, 0.0], read(clients.make_payload(document, schema)))
        for n, row in enumerate(rows)
        for document in [Document(str(n), "text", "title", row)]
    ]
    shard.update(edge.UpdateOperation.upsert_points(points))
    if indexed:
        for path, name in clients.list_indexes(schema).items():
            kind = getattr(edge.PayloadSchemaType, name.capitalize())
            shard.update(edge.UpdateOperation.create_field_index(path, kind))
    found = []
    for tree in trees:
        condition = read(make_filter(plan_filter(tree, schema)))
        condition = make_edge_filter(clients.move_paths(condition, schema))
        records, _ = shard.scroll(edge.ScrollRequest(limit=1000, filter=condition))
        found.append(sorted(record.id for record in records))
    shard.close()
    return found


def misread(value):
    """Return JSON as a Qdrant server has it after a few segments: serde_json reads each float off.

    It multiplies the digits, as one float64, with a power of ten, which rounds twice.
    """
    if isinstance(value, dict):
        return {key: misread(part) for key, part in value.items()}
    if isinstance(value, list):
        return [misread(part) for part in value]
    for _ in range(3 if isinstance(value, float) else 0):
        digits, _, exponent = repr(abs(value)).partition("e")
        whole, _, fraction = digits.partition(".")
        scale = int(exponent or 0) - len(fraction)
        number = float(int(whole + fraction))
        while scale < -308:
            number, scale = number / 1e308, scale + 308
        read = number / float(f"1e{-scale}") if scale < 0 else number * float(f"1e{scale}")
        value = math.copysign(read, value) if math.isfinite(read) else value
    return value


def test_serde_json_reads_this_float_wrong_and_so_does_the_engine(tmp_path):
    edge = pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    stored = 2.0**63 - 1024
    assert misread(stored) == 2.0**63
    config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(2, edge.Distance.Cosine))
    shard = edge.EdgeShard.create(str(tmp_path), config)
    shard.update(edge.UpdateOperation.upsert_points([edge.Point(0, [1.0, 0.0], {"x": stored})]))
    records, _ = shard.scroll(edge.ScrollRequest(limit=1, with_payload=True))
    assert records[0].payload["x"] == 2.0**63
    shard.close()


BACKENDS = {
    "arrow": search_arrow,
    "qdrant client in memory": search_client,
    "qdrant engine": search_engine,
    "qdrant engine with payload indexes": partial(search_engine, indexed=True),
    "qdrant server": partial(search_engine, read=misread),
    "qdrant server with payload indexes": partial(search_engine, indexed=True, read=misread),
    "qdrant server for other programs": partial(search_engine, read=misread, clients=CLIENTS),
    "qdrant server for other programs with payload indexes": partial(
        search_engine, indexed=True, read=misread, clients=CLIENTS
    ),
}
every_backend = pytest.mark.parametrize("search", BACKENDS.values(), ids=BACKENDS)


SEARCHED = [*list(BACKENDS)[1:5], list(BACKENDS)[-1]]


@pytest.mark.parametrize("search", [BACKENDS[name] for name in SEARCHED], ids=SEARCHED)
@given(case=cases())
@quick
def test_qdrant_is_the_reference(tmp_path_factory, search, case):
    *documents, trees, found = case
    folder = tmp_path_factory.mktemp("shard")
    got = search(*documents, trees, folder)
    shutil.rmtree(folder, ignore_errors=True)  # 40 of them are hundreds of megabytes
    for tree, expected, rows in zip(trees, found, got, strict=True):
        assert rows == expected, str(tree)


@given(cases())
@settings(quick, max_examples=150)
def test_arrow_masks_are_the_reference(case):
    *documents, trees, found = case
    for tree, expected, rows in zip(trees, found, search_arrow(*documents, trees), strict=True):
        assert rows == expected, str(tree)


@given(cases())
@quick
def test_filters_survive_being_written_and_read(case):
    rows, schema, trees, found = case
    for tree, expected in zip(trees, found, strict=True):
        again = parse_filter(str(tree))
        holds = evaluate_filter(again, schema, rows)
        assert [n for n, held in enumerate(holds) if held] == expected
        assert parse_filter(str(again)) == again
        assert str(parse_filter(str(again))) == str(again)


@every_backend
@pytest.mark.parametrize(
    ("stored", "text", "values"),
    [
        ([2**63 - 1025], "x == 9223372036854775808", []),
        ([2**63 - 1025, 2**63 - 1024], "x == 9223372036854774784", [2**63 - 1024]),
        ([2.0**63 - 1024, 2.0**63], "x == 9223372036854775808", [2.0**63]),
        ([2.0**63 - 1024, 2.0**63], "x < 9223372036854775808", [2.0**63 - 1024]),
        ([2.0**63 - 1024, 2.0**63], "x >= 9223372036854775807", [2.0**63]),
        ([2.0**63 - 1024, 0.5, 3], "x in [9223372036854774784, 0.5]", [2.0**63 - 1024, 0.5]),
        ([2.0**64, -(2.0**64)], "x > 18446744073709551615", [2.0**64]),
        ([2**53, 2**53 + 1], "x == 9007199254740992.0", [2**53]),
        ([2**53, 2**53 + 1], "x == 9007199254740993", [2**53 + 1]),
        ([2**53, 2**53 + 1], "x != 9007199254740993", [2**53]),
        ([2**53, 2**53 + 1], "x not in [9007199254740992]", [2**53 + 1]),
        ([2**53 - 1, 2**53, 2**53 + 1], "x < 9007199254740992.0", [2**53 - 1]),
        ([2**53 - 1, 2**53, 2**53 + 1], "x > 9007199254740992", [2**53 + 1]),
        ([-(2**53) - 1, -(2**53)], "x <= -9007199254740993", [-(2**53) - 1]),
        ([-(2**63), 2**63 - 1], "x >= -9223372036854775808", [-(2**63), 2**63 - 1]),
        ([-(2**63), 2**63 - 1], "x < -9223372036854775808", []),
        ([-(2**63), 2**63 - 1], "x < 18446744073709551616", [-(2**63), 2**63 - 1]),
        ([-(2**63), 2**63 - 1], "x in [-9223372036854775809, 9223372036854775807]", [2**63 - 1]),
        ([0.1, 1 / 11], "x == 0.09090909090909091", [1 / 11]),
        ([0.1, 0.30000000000000004], "x == 0.3", []),
        ([0.1, 0.30000000000000004], "x == 0.30000000000000004", [0.30000000000000004]),
        ([6.604630556388117e-41], "x == 6.604630556388117e-41", [6.604630556388117e-41]),
        ([6.604630556388117e-41], "x > 6.604630556388117e-41", []),
        (["[9007199254740993]", "[9007199254740992]"], "x contains 9007199254740992.0", [1]),
        (["[9007199254740993]", "[9007199254740992]"], "x contains 9223372036854775808", []),
        (["[0.5, 0.30000000000000004]", "[0.3]"], "x contains 0.30000000000000004", [0]),
        (["[0.5, 9007199254740992]"], "x contains 9007199254740993", []),
    ],
)
def test_large_numbers_compare_as_in_python(tmp_path, search, stored, text, values):
    rows = [{"x": value} for value in stored]
    schema = infer_schema(rows)
    if isinstance(stored[0], str):
        expected = values  # row numbers
    else:
        expected = [number for number, value in enumerate(stored) if value in values]
    assert search(rows, schema, [parse_filter(text)], tmp_path) == [expected]


PYTHON = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@every_backend
@pytest.mark.parametrize("kind", ["int", "float"])
def test_every_operator_near_every_edge_is_that_of_python(tmp_path, search, kind):
    near = [number for number in NEAR if abs(number) > 1000 or abs(number) < 4]
    stored = [number for number in near if -(2**63) <= number < 2**63]
    if kind == "float":
        stored = [float(number) for number in near if int(float(number)) == number] + [0.5]
    literals = [*near[::5], *map(float, near[1::9]), 0.5, -0.5]
    rows = [{"x": value} for value in stored]
    schema = infer_schema(rows)
    assert str(schema.type_of("x")) == kind
    asked = [(name, literal) for name in PYTHON for literal in literals]
    found = search(rows, schema, [Compare("x", *pair) for pair in asked], tmp_path)
    for (name, literal), got in zip(asked, found, strict=True):
        expected = [n for n, value in enumerate(stored) if PYTHON[name](value, literal)]
        assert got == expected, f"x {name} {literal!r}"
