import subprocess
import sys

import pytest

from retrieval import read_corpus
from retrieval.corpus import stdlib
from retrieval.errors import FailureError


@pytest.fixture(scope="module")
def read():
    """The documents by id, and the sources that were parsed while all were read twice."""
    parsed, parse = [], stdlib.ast.parse
    stdlib.stdlib_rows.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stdlib.ast, "parse", lambda source: parsed.append(source) or parse(source))
        found, again = (
            {document.doc_id: document for document in read_corpus("python-stdlib")}
            for _ in range(2)
        )
    assert found == again
    return found, parsed


@pytest.fixture
def documents(read):
    return read[0]


@pytest.mark.parametrize(
    ("name", "kind", "module"),
    [
        ("shutil.rmtree", "function", "shutil"),
        ("json.dumps", "function", "json"),
        ("math.sqrt", "function", "math"),
        ("datetime.datetime", "class", "datetime"),
        ("itertools.chain", "class", "itertools"),
        ("collections.deque", "class", "collections"),
        ("os.path.join", "function", "os.path"),
        ("pathlib.Path.exists", "method", "pathlib"),
        ("io.open", "function", "io"),
        ("heapq.heappush", "function", "heapq"),
        ("functools.partial", "class", "functools"),
        ("random.randint", "function", "random"),
        ("os.listdir", "function", "os"),
        ("threading.Lock", "function", "threading"),
        ("collections.abc.Mapping", "class", "collections.abc"),
        ("json.JSONDecoder", "class", "json"),
        ("builtins.print", "function", "builtins"),
        ("builtins.str.split", "method", "builtins"),
        ("textwrap", "module", "textwrap"),
    ],
)
def test_names_that_users_know_are_there(documents, name, kind, module):
    if name == "threading.Lock" and sys.version_info >= (3, 13):
        kind = "class"
    assert documents[name].title == name
    assert documents[name].metadata == {"kind": kind, "module": module}


def test_there_are_some_thousand_documents_and_the_count_is_known(documents):
    assert 2000 <= len(documents) <= (3700 if sys.version_info < (3, 12) else 4200)
    assert read_corpus("python-stdlib").count_hint == len(documents)


def test_every_document_has_text_and_a_public_name(documents):
    assert all(document.text.strip() for document in documents.values())
    parts = {part for name in documents for part in name.split(".")}
    assert [part for part in parts if part.startswith("_")] == []


def test_ids_come_sorted(documents):
    assert list(documents) == sorted(documents)


def test_the_text_is_the_signature_and_the_docstring(documents):
    text = documents["shutil.rmtree"].text
    assert text.startswith("shutil.rmtree(path, ")
    assert "\n\nRecursively delete a directory tree.\n" in text
    assert documents["math.sqrt"].text == "math.sqrt(x, /)\n\nReturn the square root of x."


def test_reading_imports_nothing_with_side_effects_and_prints_nothing(documents):
    code = (
        "import sys; from retrieval import read_corpus;"
        "ids = [d.doc_id for d in read_corpus('python-stdlib')];"
        "bad = {'antigravity', 'this', 'idlelib', 'test', 'lib2to3', 'tkinter', 'readline'};"
        "assert not bad & set(sys.modules), bad & set(sys.modules);"
        "print(*ids, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    ids = done.stdout.split()
    # Pytest and libraries that other tests import replace hooks, in this process.
    found, here = ([n for n in names if not n.endswith("hook")] for names in (ids, documents))
    assert found == here


def test_each_source_is_parsed_once(read):
    documents, parsed = read
    assert len(documents) > 0
    assert len(set(parsed)) == len(parsed) > 100


def test_a_python_without_its_sources_is_a_failure(tmp_path, monkeypatch):
    stdlib.stdlib_rows.cache_clear()
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(FailureError, match="no library sources"):
        list(read_corpus("python-stdlib"))
