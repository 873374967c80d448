"""The JSON that Qdrant gets: filters, payloads, and whole numbers that float64 cannot hold."""

import json
import subprocess
import sys

import pytest

from indexes.backends.qdrant.filters import (
    ROOT,
    field_path,
    list_payload_indexes,
    make_edge_filter,
    make_filter,
    make_payload,
)
from retrieval.filters import infer_schema, parse_filter, plan_filter

ROWS = [
    {
        "year": 2020,
        "lang": "en",
        "tags": '["a", null]',
        "score": 0.5,
        "draft": True,
        "day": "2020-12-31",
        'a."%': 1,
    },
    {"year": None, "tags": "[]", "score": float("nan"), "mixed": 1},
    {"mixed": "x"},
]
SCHEMA = infer_schema(ROWS)
EDGES = [2**53, 2**53 + 1, 2**54 + 1, 2**62 + 1, 2**63 - 1025, 2**63 - 2, 2**63 - 1]


def make(text, schema=SCHEMA):
    return make_filter(plan_filter(parse_filter(text), schema))


def test_a_payload_holds_values_only_and_bools_as_numbers():
    assert make_payload(ROWS[0], SCHEMA) == {
        "year": 2020,
        "lang": "en",
        "tags": ["a"],
        "score": 0.5,
        "score%high": 0x3FE00000,  # 0.5 is the float64 3FE0000000000000
        "score%low": 0,
        "draft": 1,
        "day": "2020-12-31T00:00:00.000000Z",
        "a.%22%25": 1,
    }
    assert make_payload(ROWS[0], SCHEMA)["draft"] is not True
    assert make_payload(ROWS[1], SCHEMA) == {}
    assert make_payload(ROWS[2], SCHEMA) == {}


def test_every_field_has_the_index_of_its_type():
    assert list_payload_indexes(SCHEMA) == {
        'fields."year"': "integer",
        'fields."lang"': "keyword",
        'fields."tags"': "keyword",
        'fields."score"': "float",
        'fields."score%high"': "integer",
        'fields."score%low"': "integer",
        'fields."draft"': "integer",
        'fields."day"': "datetime",
        'fields."a.%22%25"': "integer",
    }


def test_paths_are_quoted_so_that_dots_and_brackets_mean_nothing():
    assert field_path("a.b[0]") == 'fields."a.b[0]"'


YEAR, LANG = 'fields."year"', 'fields."lang"'
HIGH, LOW = 'fields."score%high"', 'fields."score%low"'


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ('lang == "en"', {"must": [{"key": LANG, "match": {"any": ["en"]}}]}),
        ("year < 2020", {"must": [{"key": YEAR, "range": {"lte": 2019}}]}),
        ("year == null", {"must": [{"is_empty": {"key": YEAR}}]}),
        ("year != null", {"must_not": [{"is_empty": {"key": YEAR}}]}),
        (
            'year >= 2020 and lang == "en"',
            {
                "must": [
                    {"key": YEAR, "range": {"gte": 2020}},
                    {"key": LANG, "match": {"any": ["en"]}},
                ]
            },
        ),
        ("not year >= 2020", {"must_not": [{"key": YEAR, "range": {"gte": 2020}}]}),
        (
            "score == 0.5",
            {
                "must": [
                    {"key": HIGH, "match": {"any": [0x3FE00000]}},
                    {"key": LOW, "match": {"any": [0]}},
                ]
            },
        ),
        (
            "score < 0.5",  # at most 3FDFFFFFFFFFFFFF, the float64 before it
            {
                "should": [
                    {"key": HIGH, "range": {"lte": 0x3FDFFFFE}},
                    {
                        "must": [
                            {"key": HIGH, "match": {"any": [0x3FDFFFFF]}},
                            {"key": LOW, "range": {"lte": 0xFFFFFFFF}},
                        ]
                    },
                ]
            },
        ),
        ("draft == true", {"must": [{"key": 'fields."draft"', "match": {"any": [1]}}]}),
        (
            'day < "2021-01-01"',
            {"must": [{"key": 'fields."day"', "range": {"lte": "2020-12-31T23:59:59.999999Z"}}]},
        ),
        (
            "year < 0.5 or year > -0.5 or year in []",
            {
                "should": [
                    {"key": YEAR, "range": {"lte": 0}},
                    {"key": YEAR, "range": {"gte": 0}},
                ]
            },
        ),
        (
            "year in []",
            {"must": [{"is_empty": {"key": ROOT}}], "must_not": [{"is_empty": {"key": ROOT}}]},
        ),
        ("not year in []", {}),
    ],
)
def test_this_filter_is_this_json(text, condition):
    assert make(text) == condition


@pytest.mark.parametrize(
    ("text", "end", "listed"),
    [
        ("year < 900000000000001", 9 * 10**14, None),
        ("year <= 900000000000001", 9 * 10**14, [9 * 10**14 + 1, 9 * 10**14]),
        ("year < 9007199254740992", 2**53 - 4, list(range(2**53 - 1, 2**53 - 8, -1))),
        ("year <= 9007199254740992", 2**53 - 3, list(range(2**53, 2**53 - 7, -1))),
        # float64 rounds the bound to 2**53, and holds every other number from there on
        ("year >= 9007199254740993", 2**53 + 6, list(range(2**53 + 1, 2**53 + 13))),
        ("year > 9223372036854774783", None, list(range(2**63 - 1024, 2**63))),
        ("year > 9223372036854771712", 2**63 - 1024, list(range(2**63 - 4095, 2**63))),
        # rounds up to 2**63; three floats below it the range begins, six below it the list ends
        (
            "year <= 9223372036854775806",
            2**63 - 3 * 1024,
            list(range(2**63 - 2, 2**63 - 6 * 1024 - 1, -1)),
        ),
    ],
)
def test_a_range_of_large_numbers_ends_before_the_bound_and_lists_the_rest(text, end, listed):
    condition = make(text)
    alternatives = condition.get("should") or condition["must"]
    ranges = [value for part in alternatives for value in part.get("range", {}).values()]
    matches = [part["match"]["any"] for part in alternatives if "match" in part]
    assert ranges == ([] if end is None else [end])
    assert matches == ([] if listed is None else [listed])


def test_floats_in_a_list_are_also_held_as_text():
    schema = infer_schema([{"x": "[0.1, 3, -0.0]"}])
    payload = make_payload({"x": "[0.1, 3, -0.0]"}, schema)
    assert payload == {"x": [0.1, 3.0, 0.0], "x%text": ["0.1", "3.0", "0.0"]}
    assert list_payload_indexes(schema) == {'fields."x"': "float", 'fields."x%text"': "keyword"}
    condition = {"key": 'fields."x%text"', "match": {"any": ["3.0"]}}
    assert make("x contains 3", schema) == {"must": [condition]}


@pytest.mark.parametrize("indexed", [False, True], ids=["plain", "with payload indexes"])
def test_ranges_beyond_2_to_the_53_are_exact_in_the_engine(tmp_path, indexed):
    edge = pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    near = {number + step for number in EDGES for step in (-1, 0, 1)} - {2**63}
    numbers = sorted({*near, *(-number for number in near), -(2**63)})
    schema = infer_schema({"year": number} for number in numbers)
    config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(2, edge.Distance.Cosine))
    shard = edge.EdgeShard.create(str(tmp_path), config)
    points = [
        edge.Point(n, [1.0, 0.0], {ROOT: make_payload({"year": number}, schema)})
        for n, number in enumerate(numbers)
    ]
    shard.update(edge.UpdateOperation.upsert_points(points))
    if indexed:
        kind = edge.PayloadSchemaType.Integer
        shard.update(edge.UpdateOperation.create_field_index(field_path("year"), kind))
    for bound in numbers:
        for text, expected in [
            (f"year < {bound}", [number for number in numbers if number < bound]),
            (f"year >= {bound}", [number for number in numbers if number >= bound]),
            (f"year == {bound}", [bound]),
        ]:
            condition = make_edge_filter(make(text, schema))
            records, _ = shard.scroll(edge.ScrollRequest(limit=1000, filter=condition))
            assert sorted(numbers[record.id] for record in records) == expected, text
    shard.close()


def nest(levels):
    text = "year == null"
    for level in range(levels):
        text = f"not ({text} {('and', 'or')[level % 2]} year != 9223372036854775807)"
    return text


def test_the_deepest_filter_is_below_the_limits_of_servers():
    written = json.dumps(make(nest(16)))  # 16 times not and and/or: 32 levels
    depth = deepest = 0
    for character in written:
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(character, 0)
        deepest = max(deepest, depth)
    assert deepest <= 80  # serde_json stops at 128, a request adds a few


def test_filters_are_made_without_qdrant_client():
    code = (
        "import sys; import indexes.backends.qdrant.filters; "
        "print([name for name in sys.modules if name.startswith(('qdrant', 'torch', 'faiss'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
