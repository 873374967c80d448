"""``update`` of a folder: only what changed is read; ``--watch`` goes on until Ctrl-C."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from cli import changing
from indexes import Index
from indexes.changes import find_ids
from retrieval.corpus.documents import registry
from retrieval.errors import MillpondError, StorageError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def replace_unseen(path, text):
    """Write other content of the same size, and give the file the time that it had."""
    state = path.stat()
    assert len(text) == state.st_size
    path.write_text(text)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def texts(folder):
    index = Index.open(folder)
    ids = find_ids(SimpleNamespace(snapshot=index.snapshot), None)
    return {name: found.text for name, found in index.fetch(ids).items()}


@pytest.fixture
def notes(tmp_path):
    write(tmp_path / "notes/a.md", "mills grind corn")
    write(tmp_path / "notes/b.txt", "frogs sing")
    return tmp_path / "notes"


@pytest.fixture
def stored(millpond, notes, tmp_path):
    assert millpond("index", notes, "--out", tmp_path / "i").exit_code == 0
    return tmp_path / "i"


def update(millpond, *args):
    result = millpond("update", *args, "--compact-at", 1)
    assert result.exit_code == 0, result.stderr
    return result.stderr.splitlines()[0].partition(" in ")[0]


class TestUnchanged:
    def test_a_file_of_the_same_time_and_size_is_not_read(self, millpond, notes, stored):
        replace_unseen(notes / "a.md", "mills grind rye!")
        assert update(millpond, stored, notes) == "Kept 2"
        assert texts(stored)["notes/a.md"] == "mills grind corn"

    def test_a_touched_file_is_read_and_not_embedded(self, millpond, notes, stored, embedded):
        embedded.clear()
        os.utime(notes / "a.md", (1, 1))
        assert update(millpond, stored, notes) == "Relabelled 1, kept 1"
        assert embedded == []
        assert update(millpond, stored, notes) == "Kept 2"

    def test_a_changed_a_new_and_a_missing_file(self, millpond, notes, stored, embedded):
        write(notes / "a.md", "mills grind rye, not corn")
        write(notes / "deep/c.md", "otters swim")
        (notes / "b.txt").unlink()
        embedded.clear()
        done = update(millpond, stored, notes, "--delete-missing")
        assert done == "Added 1, replaced 1, deleted 1"
        assert sorted(embedded) == ["mills grind rye, not corn", "otters swim"]
        assert sorted(texts(stored)) == ["notes/a.md", "notes/deep/c.md"]

    def test_another_encoding_reads_all_files_again(self, millpond, notes, stored):
        replace_unseen(notes / "a.md", "mills grind rye!")
        done = update(millpond, stored, notes, "--encoding", "windows-1252")
        assert done == "Replaced 1, kept 1"

    def test_another_millpond_reads_all_files_again(self, millpond, notes, stored, monkeypatch):
        monkeypatch.setattr("indexes.search.ids.millpond_version", lambda: "9.9")
        replace_unseen(notes / "a.md", "mills grind rye!")
        assert update(millpond, stored, notes) == "Replaced 1, kept 1"

    def test_passages_of_a_file_are_one_document(self, millpond, notes, tmp_path):
        write(notes / "a.md", "# One\n" + "mills " * 20 + "\n# Two\n" + "corn " * 20)
        millpond("index", notes, "--out", tmp_path / "p", "--passages", 8)
        assert update(millpond, tmp_path / "p", notes, "--delete-missing") == "Kept 2"


class TestWhatCannotBeRead:
    def test_a_bad_file_is_no_missing_one(self, millpond, notes, stored):
        (notes / "a.md").write_bytes(b"mills\0grind")
        done = update(millpond, stored, notes, "--delete-missing", "--skip-bad")
        assert done == "Kept 1"
        assert texts(stored)["notes/a.md"] == "mills grind corn"

    def test_nor_is_one_whose_reader_is_gone(self, millpond, notes, stored, monkeypatch):
        write(notes / "c.rst", "ducks dive")
        update(millpond, stored, notes)
        lost = registry.FileFormat("reStructuredText", None, ("no_such_module",))
        monkeypatch.setitem(registry.FORMATS, ".rst", lost)
        result = millpond("update", stored, notes, "--delete-missing")
        assert "Kept 2 in " in result.stderr
        assert "1 .rst, whose readers are not installed" in result.stderr
        assert "notes/c.rst" in texts(stored)

    def test_records_that_are_skipped_would_be_deleted(self, millpond, index_folder, corpus):
        result = millpond("update", index_folder, corpus, "--skip-bad", "--delete-missing")
        assert result.exit_code == 2
        assert "--skip-bad skips" in result.stderr


class TestWatching:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(changing, "QUIET_MS", 50)
        monkeypatch.setattr(changing, "RETRY_MS", 50)

    @pytest.fixture
    def meanwhile(self, stored, monkeypatch):
        """Run steps beside the command, each once the index has changed, then press Ctrl-C.

        It is pressed while the command waits: Python may lose a file that is being opened then.
        """
        failures = []
        working = threading.Event()
        watch = changing.watch

        def watch_and_tell(index, folders, again):
            def told(label):
                working.set()
                try:
                    again(label)
                finally:
                    working.clear()

            watch(index, folders, told)

        monkeypatch.setattr(changing, "watch", watch_and_tell)

        def wait_for(condition):
            deadline = time.monotonic() + 600
            while not condition():
                if time.monotonic() > deadline:
                    failures.append(condition)
                    return
                time.sleep(0.02)

        def run(steps):
            try:
                for act, condition in steps:
                    act()
                    wait_for(condition)
                wait_for(lambda: not working.is_set())
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        def start(*steps):
            thread = threading.Thread(target=run, args=(steps,), daemon=True)
            thread.start()
            return thread

        yield start
        assert not failures

    def test_changes_are_seen_until_ctrl_c(self, millpond, notes, stored, meanwhile):
        def says(text, name="notes/a.md"):
            def condition():
                try:
                    return texts(stored).get(name) == text
                except (MillpondError, OSError):  # opened just when the next version came
                    return False

            return condition

        def spoil():
            (notes / "b.txt").write_bytes(b"\0")
            write(notes / "c.md", "otters swim")

        thread = meanwhile(
            (lambda: write(notes / "a.md", "rye"), says("rye")),
            (spoil, says("otters swim", "notes/c.md")),
            ((notes / "c.md").unlink, says(None, "notes/c.md")),
        )
        result = millpond("update", stored, notes, "--watch", "--delete-missing")
        thread.join()
        assert result.exit_code == 0, result.stderr
        lines = result.stderr.splitlines()
        assert lines[0].startswith("Kept 2 in ") or "replaced 1" in lines[0].lower()
        assert f"Watching {notes}. Ctrl-C ends it." in lines
        (bad,) = [line for line in lines if line.startswith("Warning: ") and "b.txt" in line]
        assert "NUL" in bad and bad.endswith("What the index holds of it stays.")
        assert lines[-1] == "Stopped."
        assert texts(stored) == {"notes/a.md": "rye", "notes/b.txt": "frogs sing"}

    def test_an_error_is_one_line_and_what_may_pass_is_tried_again(self, stored, notes, capsys):
        errors = [StorageError("locked"), StorageError("locked"), None, KeyboardInterrupt()]

        def again(label):
            error = errors.pop(0)
            if error is not None:
                raise error
            write(notes / "a.md", "rye")  # so that there is a next round

        changing.watch(stored, [str(notes)], again)
        assert errors == []
        assert capsys.readouterr().err.splitlines()[1:] == ["Error: locked", "Stopped."]

    @pytest.mark.parametrize("corpus", ["file", "-"])
    def test_only_folders_of_documents_are_watched(self, millpond, notes, stored, corpus):
        what = notes / "a.md" if corpus == "file" else corpus
        result = millpond("update", stored, what, "--watch", stdin="")
        assert result.exit_code == 2
        assert "--watch follows folders of documents" in result.stderr


def test_the_documents_of_another_folder_are_not_deleted_as_missing(
    millpond, notes, stored, tmp_path
):
    write(tmp_path / "more/d.md", "ducks dive")
    update(millpond, stored, tmp_path / "more")
    result = millpond("update", stored, notes, "--watch", "--delete-missing")
    assert result.exit_code == 2
    assert f"would delete the documents of {tmp_path / 'more'}" in result.stderr
    assert len(texts(stored)) == 3


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("notes/a.md", True),
        ("notes/.gitignore", True),
        ("notes/.git/HEAD", False),
        ("notes/.a.md.swp", False),
        ("notes/node_modules/x/y.md", False),
        ("notes/i/manifest.json", False),
        ("elsewhere/a.md", False),
    ],
)
def test_what_is_never_read_wakes_nobody(tmp_path, name, counts):
    notes = tmp_path / "notes"
    assert changing._counts(tmp_path / name, [notes], notes / "i") is counts
