"""A tiny teacher, and a way to make configs that follow it."""

import json

import pytest

from embedder.embedder import Embedder
from embedder.training.config import read_config
from embedder.variants import VariantSpec
from tests.embedder.training.conftest import WORDS


@pytest.fixture(scope="session")
def teacher_name(base_folder):
    """A base of another architecture: vectors of another meaning."""
    return f"{base_folder['qwen3']}:mean+bidirectional,max_tokens=32"


@pytest.fixture(scope="session")
def teacher_encoder(teacher_name):
    return Embedder.load(teacher_name, device="cpu")


@pytest.fixture
def write_texts(tmp_path):
    """Write texts as JSON lines, or as lines of a .txt file."""

    def write(*texts, name="texts.jsonl"):
        path = tmp_path / name
        rows = (
            texts
            if name.endswith(".txt")
            else (json.dumps({"_id": str(i), "text": text}) for i, text in enumerate(texts))
        )
        path.write_text("".join(f"{row}\n" for row in rows))
        return path

    return write


def some_texts(count=24):
    return [
        " ".join(WORDS[(i + k) % len(WORDS)] for k in range(1 + i % 6)) + f" {i}"
        for i in range(count)
    ]


@pytest.fixture
def texts_file(write_texts):
    return write_texts(*some_texts())


@pytest.fixture
def lesson_plan(plan, teacher_name, texts_file):
    """The data of a config of texts alone and a teacher, changed as ``plan``."""

    def build(**changes):
        changes = {"teacher": {"model": teacher_name, "held_out": 0}, **changes}
        return plan(**{"data": [{"path": str(texts_file)}], **changes})

    return build


@pytest.fixture
def lesson_config(lesson_plan, tmp_path):
    return lambda **changes: read_config(lesson_plan(**changes), tmp_path)


def spec_of(base, **changes):
    return VariantSpec(base=str(base), pooling="mean", attention="causal", **changes)
