"""The language of ``--filter``: text, tree, field types, and what a filter means.

``parse_filter`` makes a tree of a text; ``plan_filter`` checks the tree against the field types
of one index and returns the few plain conditions that backends carry out; ``evaluate_filter`` is
the reference meaning, which every backend has to agree with.
"""

from retrieval.filters.parse import parse_filter
from retrieval.filters.plan import Plan, evaluate_filter, plan_filter
from retrieval.filters.schema import FieldType, Schema, SchemaBuilder, infer_schema
from retrieval.filters.tree import Expression

__all__ = [
    "Expression",
    "FieldType",
    "Plan",
    "Schema",
    "SchemaBuilder",
    "evaluate_filter",
    "infer_schema",
    "parse_filter",
    "plan_filter",
]
