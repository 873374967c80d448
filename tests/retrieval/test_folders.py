"""Folders and several files as one corpus; what is passed over is told."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval import read_corpus
from retrieval.errors import RecordError, UsageError


def ids(corpus):
    return [document.doc_id for document in corpus]


class TestPassedOver:
    def test_it_is_counted_by_ending(self, write, tmp_path):
        for name in ("a.md", "b.png", "c.PNG", "deep/d.jpg", "Makefile"):
            write(f"docs/{name}", b"x")
        corpus = read_corpus(tmp_path / "docs")
        assert ids(corpus) == ["docs/a.md"]
        assert corpus.notes == (
            f"{tmp_path / 'docs'}: passed over 1 without an ending, 1 .jpg, 2 .png.",
        )

    def test_a_table_beside_texts_is_named_with_what_reads_it(self, write, tmp_path):
        write("docs/a.md", b"x" * 100)
        write("docs/budget.csv", b"id,text\n1,x\n")
        (note,) = read_corpus(tmp_path / "docs").notes
        assert "passed over 1 .csv." in note
        assert f"millpond index {tmp_path / 'docs' / 'budget.csv'}" in note

    def test_a_readme_beside_the_real_data_is_not_taken_for_the_corpus(self, write, tmp_path):
        write("set/README.md", b"# A data set")
        write("set/data/.keep", b"")
        for number in range(2):
            table = pa.table({"id": [f"{number}"], "text": ["x"]})
            pq.write_table(table, tmp_path / f"set/data/train-{number}.parquet")
        with pytest.raises(
            UsageError, match=r"1 file of text or code and.*2 \.parquet.*'.*/\*\.parquet'"
        ):
            read_corpus(tmp_path / "set")
        assert ids(read_corpus(f"{tmp_path}/set/data/*.parquet")) == ["0", "1"]

    def test_hidden_folders_node_modules_and_what_git_ignores_are_left_out(self, write, tmp_path):
        kept = ("a.md", "logs/keep.md", "deep/b.txt")
        others = (".git/x.md", "node_modules/p/y.md", "logs/z.md", "build/w.md", "deep/t.txt")
        for name in (*kept, *others):
            write(f"docs/{name}", b"x")
        write("docs/.gitignore", b"logs/*\n!logs/keep.md\nbuild/\n")
        write("docs/deep/.gitignore", b"t.txt\n")
        corpus = read_corpus(tmp_path / "docs")
        assert sorted(ids(corpus)) == sorted(f"docs/{name}" for name in kept)
        assert "3 that .gitignore lists" in corpus.notes[0]

    def test_the_rules_of_the_repository_hold_in_its_folders(self, write, tmp_path):
        write("repository/.git/HEAD", b"")
        write("repository/.gitignore", b"*.draft.md\nout/\n")
        for name in ("docs/a.md", "docs/b.draft.md", "out/c.md"):
            write(f"repository/{name}", b"x")
        assert ids(read_corpus(tmp_path / "repository/docs")) == ["docs/a.md"]
        assert ids(read_corpus(tmp_path / "repository/out")) == ["out/c.md"]  # it was named

    def test_a_link_to_itself_is_named(self, write, tmp_path):
        write("docs/a.md", b"x")
        (tmp_path / "docs/loop.md").symlink_to("loop.md")
        (tmp_path / "docs/gone.md").symlink_to("nowhere.md")
        with pytest.raises(RecordError, match=r"docs/loop\.md: a link that leads to itself"):
            list(read_corpus(tmp_path / "docs"))
        corpus = read_corpus(tmp_path / "docs", skip_bad=True)
        assert ids(corpus) == ["docs/a.md"]
        assert corpus.skipped == 1
        assert "1 (broken link)" in corpus.notes[0]


class TestSeveral:
    def test_one_text_file_is_a_document(self, write):
        (document,) = read_corpus(write("docs/install.md", b"# Install\nType make."))
        assert (document.doc_id, document.title) == ("docs/install.md", "Install")

    def test_files_and_folders_are_read_in_order(self, write, tmp_path):
        write("docs/a.md", b"x")
        rows = write("rows.jsonl", b'{"id": "r", "text": "x"}\n')
        corpus = read_corpus([tmp_path / "docs", rows, write("more/b.txt", b"y")])
        assert ids(corpus) == ["docs/a.md", "r", "more/b.txt"]
        assert corpus.name == f"{tmp_path / 'docs'}, {rows}, {tmp_path / 'more/b.txt'}"

    def test_a_pattern_stands_for_its_files(self, write, tmp_path):
        for name in ("b.md", "a.md", "c.txt"):
            write(f"docs/{name}", b"x")
        corpus = read_corpus(f"{tmp_path}/docs/*.md")
        assert ids(corpus) == ["docs/a.md", "docs/b.md"]
        assert corpus.count_hint == 2
        assert corpus.name == f"{tmp_path}/docs/*.md"

    def test_a_folder_of_parts_is_one_corpus(self, write, tmp_path):
        write("parts/part-1.jsonl.gz", gzip.compress(b'{"id": 1, "text": "x"}\n'))
        write("parts/part-2.jsonl.gz", gzip.compress(b'{"id": 2, "text": "y"}\n'))
        assert ids(read_corpus(tmp_path / "parts")) == ["1", "2"]

    def test_parts_of_several_formats_have_to_be_named(self, write, tmp_path):
        write("parts/a.jsonl", b'{"id": 1, "text": "x"}\n')
        write("parts/b.csv", b"id,text\n2,y\n")
        with pytest.raises(UsageError, match=r"several formats \(1 \.jsonl, 1 \.csv\)"):
            read_corpus(tmp_path / "parts")

    def test_a_file_that_is_named_twice_is_read_once(self, write, tmp_path):
        path = write("docs/a.md", b"x")
        assert ids(read_corpus([path, path])) == ["docs/a.md"]
        assert ids(read_corpus([path, tmp_path / "docs", f"{tmp_path}/docs/."])) == ["docs/a.md"]


def test_a_line_of_gitignore_that_cannot_be_read_is_passed_over(tmp_path):
    (tmp_path / ".gitignore").write_text("!\nb.md\n")
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("text")
    assert ids(read_corpus(tmp_path)) == [f"{tmp_path.name}/a.md"]
