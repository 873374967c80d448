"""Every backend against the reference meaning: Arrow masks, Qdrant's client, Qdrant's engine."""

import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes.backends.qdrant.points import (
    ROOT,
    list_payload_indexes,
    make_edge_filter,
    make_filter,
    make_payload,
)
from indexes.search.filters import make_columns, select_rows
from retrieval.filters import evaluate_filter, infer_schema, parse_filter, plan_filter
from retrieval.filters.tree import And, Compare, Contains, Member, Not, Or

NAMES = ["year", "a.b", "x[0]", 'quo"te', "per%22cent", "ünï", "not", "back`tick", ""]

EDGES = [0, 1, 2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, 2**62 + 1, 2**63 - 1025, 2**63 - 1]
INTS = st.sampled_from([*EDGES, *[-edge for edge in EDGES], -(2**63)]) | st.integers(-3, 3)
FLOATS = st.sampled_from(
    [0.0, -0.0, 0.5, 3.0, 2.0**53, -(2.0**63), 5e-324, 1.7e308, -math.inf, math.inf, math.nan]
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
FAMILIES = [INTS, FLOATS, INTS | FLOATS, TEXTS, DATES, DATES | TEXTS, st.booleans(), LISTS]

WIDE = st.sampled_from([2**63, 2**70, -(10**400), 10**400, 2.5, 1e300, 2**60 + 1, 0.1])
LITERALS = {
    "int": INTS | WIDE | FLOATS.filter(math.isfinite),
    "float": INTS | WIDE | FLOATS.filter(math.isfinite),
    "string": TEXTS,
    "date": DATES,
    "bool": st.booleans(),
}


@st.composite
def corpora(draw):
    """Draw the metadata of a few documents: each field of one family, often null or missing."""
    families = draw(st.lists(st.sampled_from(FAMILIES), min_size=1, max_size=4))
    names = draw(st.permutations(NAMES))[: len(families)]
    cells = [family | st.none() for family in families]
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


@given(cases())
@settings(quick, max_examples=150)
def test_arrow_masks_are_the_reference(case):
    rows, schema, trees, found = case
    columns = make_columns(rows, schema)
    for tree, expected in zip(trees, found, strict=True):
        mask = select_rows(plan_filter(tree, schema), columns)
        assert mask.dtype == np.bool_
        assert mask.shape == (len(rows),)
        assert np.flatnonzero(mask).tolist() == expected, str(tree)


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


@given(cases())
@quick
def test_qdrant_client_in_memory_is_the_reference(case):
    qdrant = pytest.importorskip("qdrant_client", reason="the qdrant extra is not installed")
    models = qdrant.models
    rows, schema, trees, found = case
    client = qdrant.QdrantClient(":memory:")
    distance = models.VectorParams(size=2, distance=models.Distance.COSINE)
    client.create_collection("test", vectors_config=distance)
    points = [
        models.PointStruct(id=n, vector=[1.0, 0.0], payload={ROOT: make_payload(row, schema)})
        for n, row in enumerate(rows)
    ]
    client.upsert("test", points)
    for tree, expected in zip(trees, found, strict=True):
        condition = models.Filter(**make_filter(plan_filter(tree, schema)))
        records, _ = client.scroll("test", scroll_filter=condition, limit=100)
        assert sorted(record.id for record in records) == expected, str(tree)
    client.close()


@pytest.mark.parametrize("indexed", [False, True], ids=["plain", "with payload indexes"])
@given(case=cases())
@quick
def test_qdrant_engine_is_the_reference(tmp_path_factory, indexed, case):
    edge = pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    rows, schema, trees, found = case
    config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(2, edge.Distance.Cosine))
    shard = edge.EdgeShard.create(str(tmp_path_factory.mktemp("shard")), config)
    points = [
        edge.Point(n, [1.0, 0.0], {ROOT: make_payload(row, schema)}) for n, row in enumerate(rows)
    ]
    shard.update(edge.UpdateOperation.upsert_points(points))
    if indexed:
        for path, name in list_payload_indexes(schema).items():
            kind = getattr(edge.PayloadSchemaType, name.capitalize())
            shard.update(edge.UpdateOperation.create_field_index(path, kind))
    for tree, expected in zip(trees, found, strict=True):
        condition = make_edge_filter(make_filter(plan_filter(tree, schema)))
        records, _ = shard.scroll(edge.ScrollRequest(limit=100, filter=condition))
        assert sorted(record.id for record in records) == expected, str(tree)
    shard.close()
