import io
import json
import sys

import pytest

GOOD = b'{"_id": "a", "text": "first"}\n'


@pytest.fixture
def good_line():
    return GOOD


@pytest.fixture
def write(tmp_path):
    def write_bytes(name, data):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return write_bytes


@pytest.fixture
def write_jsonl(tmp_path):
    def write_records(*records, name="corpus.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return write_records


@pytest.fixture
def stdin(monkeypatch):
    def fill(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return fill
