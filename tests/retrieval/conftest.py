import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD = b'{"_id": "a", "text": "first"}\n'


@pytest.fixture
def good_line() -> bytes:
    return GOOD


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write_bytes(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return write_bytes


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write_records(*records: Any, name: str = "corpus.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return write_records


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def fill(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return fill
