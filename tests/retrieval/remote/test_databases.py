"""--sql: records of SQLite, DuckDB and PostgreSQL."""

import shutil
import socket
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from retrieval import read_corpus
from retrieval.errors import FailureError, RecordError, UsageError

ROWS = [(1, "Mills", "grind corn", 1851), (2, "Frogs", "sing", None)]
SELECT = "SELECT id, title, body, year FROM pages ORDER BY id"


def read(source, sql=SELECT, **options):
    return [
        (d.doc_id, d.title, d.text, d.metadata) for d in read_corpus(source, sql=sql, **options)
    ]


EXPECTED = [
    ("1", "Mills", "grind corn", {"year": 1851}),
    ("2", "Frogs", "sing", {"year": None}),
]


@pytest.fixture
def pages(tmp_path):
    path = tmp_path / "pages.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE pages (id INT, title TEXT, body TEXT, year INT)")
        database.executemany("INSERT INTO pages VALUES (?, ?, ?, ?)", ROWS)
        database.commit()
    return path


def test_sqlite(pages):
    assert read(pages) == read(str(pages)) == EXPECTED


def test_fields_are_named_as_those_of_a_file(pages):
    found = read(pages, "SELECT title, body FROM pages", id="title", text="title,body")
    assert found[0] == ("Mills", "Mills", "Mills\ngrind corn", {})


def test_duckdb(tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    path = tmp_path / "pages.duckdb"
    with duckdb.connect(str(path)) as database:
        database.execute("CREATE TABLE pages (id INT, title TEXT, body TEXT, year INT)")
        database.executemany("INSERT INTO pages VALUES (?, ?, ?, ?)", ROWS)
    assert read(path) == EXPECTED
    with pytest.raises(UsageError, match="read-only"):
        read(path, "DELETE FROM pages")


@pytest.mark.parametrize(
    ("sql", "error", "words"),
    [
        ("SELECT body FROM", UsageError, "the query fails .*syntax|incomplete"),
        ("SELECT x FROM pages", UsageError, "no such column: x"),
        ("DELETE FROM pages", UsageError, "readonly"),
        ("SELECT id, body AS id FROM pages", RecordError, "two columns are called 'id'"),
        ("SELECT 1 AS id, x'00' AS text", RecordError, "record|bytes"),
        ("SELECT 1 AS id, CAST(x'ff' AS TEXT) AS text", FailureError, "fails after record 0"),
    ],
)
def test_what_fails_is_one_line(pages, sql, error, words):
    with pytest.raises(error, match=words) as raised:
        read(pages, sql)
    assert str(raised.value).startswith(str(pages))
    assert "\n" not in str(raised.value)
    assert read(pages) == EXPECTED


def test_what_is_no_database(tmp_path, pages):
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(UsageError, match="this is something else"):
        read(tmp_path / "a.jsonl")
    with pytest.raises(UsageError, match="there is no such file"):
        read(tmp_path / "b.db")
    with pytest.raises(UsageError, match="asks one database, and 2"):
        read([pages, pages])
    with pytest.raises(UsageError, match="a database.*--sql 'SELECT"):
        read_corpus(pages)


@pytest.fixture(scope="module")
def postgres():
    """A server of Debian's package, started as its user, who may not read pytest's folders."""
    pytest.importorskip("adbc_driver_postgresql", reason="adbc-driver-postgresql is not installed")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not binaries or shutil.which("runuser") is None:
        pytest.skip("this machine has no PostgreSQL")
    folder = Path(tempfile.mkdtemp(prefix="millpond-postgres-"))
    shutil.chown(folder, "postgres")
    as_user = ("runuser", "-u", "postgres", "--")
    tools, data = binaries[-1].parent, folder / "data"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = {"check": True, "capture_output": True, "cwd": folder}
    subprocess.run([*as_user, tools / "initdb", "-D", data, "-A", "trust"], **run)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
    start = [*as_user, tools / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w"]
    subprocess.run([*start, "start"], **run)
    yield f"postgresql://postgres:unused@127.0.0.1:{port}/postgres"
    subprocess.run([*as_user, tools / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_postgresql(postgres):
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(postgres) as database, database.cursor() as cursor:
        cursor.execute("CREATE TABLE pages (id INT, title TEXT, body TEXT, year INT)")
        cursor.executemany("INSERT INTO pages VALUES ($1, $2, $3, $4)", ROWS)
        database.commit()
    assert read(postgres) == EXPECTED
    with pytest.raises(UsageError, match=r"postgres:\*\*\*@.*the query fails") as raised:
        read(postgres, "SELECT nothing FROM pages")
    assert "unused" not in str(raised.value)


def test_a_server_that_is_not_there(monkeypatch):
    pytest.importorskip("adbc_driver_postgresql", reason="adbc-driver-postgresql is not installed")
    with pytest.raises(FailureError, match=r"me:\*\*\*@127.0.0.1:1/db: cannot be opened"):
        read("postgresql://me:s3cret@127.0.0.1:1/db")
