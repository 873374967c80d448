import builtins
import csv
import gzip
import json
import math
import tracemalloc
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import Document, Query, read_corpus, read_queries
from retrieval.corpus.reading import IdSet
from retrieval.errors import (
    DuplicateIdError,
    EmptyCorpusError,
    FailureError,
    RecordError,
    SourceNotFoundError,
    StorageError,
    UsageError,
)

A = Document("a", "first")


class TestSources:
    def test_a_beir_folder_is_read_from_its_corpus_jsonl(self, write, good_line, tmp_path):
        write("corpus.jsonl", good_line)
        write("readme.md", b"# Not a document here")
        assert list(read_corpus(tmp_path)) == [A]

    def test_a_beir_folder_may_be_compressed(self, write, good_line, tmp_path):
        write("corpus.jsonl.gz", gzip.compress(good_line))
        assert list(read_corpus(tmp_path)) == [A]

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("c.jsonl", b'{"_id": "a", "text": "first"}\n'),
            ("c.NDJSON", b'{"id": "a", "contents": "first", "title": null}'),
            ("c.csv", b'doc_id,body\r\na,"first"\r\n'),
            ("c.tsv", b"id\tcontent\na\tfirst\n"),
        ],
    )
    @pytest.mark.parametrize("zipped", [False, True])
    def test_every_text_format_gives_the_same_document(self, write, name, data, zipped):
        path = write(name + ".gz", gzip.compress(data)) if zipped else write(name, data)
        assert list(read_corpus(path)) == [A]

    def test_parquet_keeps_types_and_knows_its_length(self, tmp_path):
        rows = {"id": [1, 2], "text": ["x", "y"], "year": [1999, None], "tags": [["t"], []]}
        pq.write_table(pa.table(rows), tmp_path / "c.parquet")
        corpus = read_corpus(tmp_path / "c.parquet")
        assert corpus.count_hint == 2
        assert list(corpus) == [
            Document("1", "x", metadata={"year": 1999, "tags": ["t"]}),
            Document("2", "y", metadata={"year": None, "tags": []}),
        ]

    def test_in_parquet_nan_is_null_and_infinity_the_largest_number(self, tmp_path):
        rows = {
            "id": ["a", "b", "c"],
            "text": ["x", "y", "z"],
            "score": [math.nan, -math.inf, -0.0],
            "list": [[0.5, math.nan], [math.inf], []],
        }
        pq.write_table(pa.table(rows), tmp_path / "c.parquet")
        metadata = [document.metadata for document in read_corpus(tmp_path / "c.parquet")]
        assert metadata == [
            {"score": None, "list": [0.5, None]},
            {"score": -1.7976931348623157e308, "list": [1.7976931348623157e308]},
            {"score": 0.0, "list": []},
        ]

    def test_parquet_rows_are_numbered_across_row_groups(self, tmp_path):
        ids = [f"d{number}" for number in range(200)]
        ids[170] = "d0"
        table = pa.table({"_id": ids, "text": ["x"] * 200})
        pq.write_table(table, tmp_path / "c.parquet", row_group_size=30)
        with pytest.raises(DuplicateIdError, match=r"c\.parquet:171: the id 'd0'"):
            list(read_corpus(tmp_path / "c.parquet"))

    def test_a_folder_of_text_files_is_read_in_the_order_of_its_ids(self, write, tmp_path):
        write("docs/b.md", b"# Title #\nBody")
        write("docs/b/z.rst", b"=====\nHead\n=====\n")
        write("docs/b-1.txt", b"\xef\xbb\xbf# plain")
        write("docs/.hidden.md", b"no")
        write("docs/.git/x.md", b"no")
        write("docs/table.dat", b"no")
        corpus = read_corpus(tmp_path / "docs")
        assert [(one.doc_id, one.text, one.title) for one in corpus] == [
            ("docs/b-1.txt", "# plain", ""),
            ("docs/b.md", "# Title #\nBody", "Title"),
            ("docs/b/z.rst", "=====\nHead\n=====\n", "Head"),
        ]
        assert corpus.count_hint == 3

    def test_stdin_is_read_once(self, stdin, good_line):
        stdin(good_line)
        corpus = read_corpus("-")
        assert corpus.name == "stdin"
        assert list(corpus) == [A]
        with pytest.raises(UsageError, match="cannot be read again"):
            iter(corpus)

    def test_a_file_called_python_stdlib_is_reached_with_a_separator(
        self, write, tmp_path, monkeypatch
    ):
        write("python-stdlib/a.txt", b"mine")
        monkeypatch.chdir(tmp_path)
        (document,) = read_corpus("./python-stdlib")
        assert (document.doc_id, document.text) == ("python-stdlib/a.txt", "mine")


class TestIteration:
    def test_each_iteration_starts_again(self, write_jsonl):
        corpus = read_corpus(write_jsonl({"id": 1, "text": "x"}, {"id": 2, "text": "y"}))
        assert next(iter(corpus)).doc_id == "1"
        assert [document.doc_id for document in corpus] == ["1", "2"]
        assert [document.doc_id for document in corpus] == ["1", "2"]

    def test_the_limit_stops_before_a_later_bad_line(self, write, good_line):
        corpus = read_corpus(write("c.jsonl", good_line + b"junk\n"), limit=1)
        assert list(corpus) == [A]
        assert corpus.count_hint is None

    def test_the_limit_bounds_the_count(self, write, tmp_path):
        for name in "abc":
            write(f"{name}.txt", b"x")
        assert read_corpus(tmp_path, limit=2).count_hint == 2

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_one_is_refused(self, limit):
        with pytest.raises(UsageError, match=f"limit is {limit}; it must be 1 or more"):
            read_corpus("-", limit=limit)

    def test_skipping_counts_anew_each_time_and_keeps_five_messages(self, write, good_line):
        corpus = read_corpus(write("c.jsonl", b"7\n" * 6 + good_line), skip_bad=True)
        for _ in range(2):
            assert list(corpus) == [A]
            assert corpus.skipped == 6
            assert len(corpus.first_skipped) == 5
        assert corpus.first_skipped[4].endswith(
            "c.jsonl:5: the line is an integer; expected one JSON object per line"
        )

    def test_200_000_documents_stream_in_little_memory(self, tmp_path):
        path = tmp_path / "c.jsonl"
        with path.open("w") as file:
            file.writelines(
                f'{{"_id": "document-{number}", "text": "{"x" * 100}"}}\n'
                for number in range(200_000)
            )
        assert path.stat().st_size > 25_000_000
        stream = iter(read_corpus(path))
        tracemalloc.start()  # for the first tenth only: it slows Python down several times
        try:
            assert sum(1 for _ in islice(stream, 20_000)) == 20_000
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # A reader that kept its documents would hold 20,000 x 400 B = 8 MB, one that read the
        # file whole 26 MB or more.
        assert peak_bytes < 2_000_000
        assert sum(1 for _ in stream) == 180_000


class TestRecords:
    def test_metadata_keeps_json_types_and_flattens_beir_metadata(self, write_jsonl):
        record = {
            "_id": "a", "text": "t", "title": "T", "n": 1, "f": 0.5, "b": True, "z": None,
            "list": [1, "é"], "metadata": {"url": "u", "deep": {"k": 1}},
        }  # fmt: skip
        (document,) = read_corpus(write_jsonl(record))
        assert document == Document(
            "a",
            "t",
            "T",
            {"n": 1, "f": 0.5, "b": True, "z": None, "list": [1, "é"], "url": "u",
             "deep": '{"k": 1}'},
        )  # fmt: skip
        assert document.metadata["b"] is True

    def test_empty_texts_blank_lines_byte_order_marks_and_blanks_in_ids_are_accepted(self, write):
        data = b'\xef\xbb\xbf{"_id": "a b", "text": ""}\r\n\r\n   \n{"_id": 7, "text": "t"}'
        assert list(read_corpus(write("c.jsonl", data))) == [
            Document("a b", ""),
            Document("7", "t"),
        ]

    @pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
    def test_a_document_of_a_megabyte_is_accepted(self, write, name):
        text = b"x" * 1_200_000
        data = b'{"id": 1, "text": "%s"}' if name == "c.jsonl" else b"id,text\n1,%s\n"
        (document,) = read_corpus(write(name, data % text))
        assert len(document.text) == 1_200_000

    def test_csv_fields_may_span_lines_and_later_rows_keep_their_line_numbers(self, write):
        path = write("c.csv", b'id,text\n1,"one\ntwo, ""three"""\n\n2,x,y\n')
        stream = iter(read_corpus(path))
        assert next(stream) == Document("1", 'one\ntwo, "three"')
        with pytest.raises(RecordError, match=r"c\.csv:5: the row has 3 columns; expected 2"):
            next(stream)

    def test_a_quote_in_tsv_is_text(self, write):
        path = write("c.tsv", b'id\ttext\n1\t"Yes", she\n2\t"no\n')
        assert [document.text for document in read_corpus(path)] == ['"Yes", she', '"no']


BAD_LINES = {
    b'{"_id": "b" "text": 1}': r"not valid JSON at column 13",
    b"{": r"not valid JSON at column 2",
    b'{"_id": "b", "text": "t", "n": 9223372036854775808}': "'n' is an integer beyond 64 bits",
    b"[" * 100_000: "not valid JSON",
    b"[]": "the line is a list; expected one JSON object per line",
    b'"text"': "the line is a string",
    b'{"text": "t"}': "no id among 'text'; expected one of _id, id, doc_id, docid",
    b'{"_id": "b"}': "no text among '_id'; expected one of text, contents, content, body",
    b"{}": "no id among no field",
    b'{"_id": true, "text": "t"}': "'_id' is true or false; expected a string or an integer",
    b'{"_id": 1.0, "text": "t"}': "'_id' is a number with a fraction",
    b'{"_id": null, "text": "t"}': "'_id' is null",
    b'{"_id": ["b"], "text": "t"}': "'_id' is a list",
    b'{"_id": "", "text": "t"}': "'_id' is empty",
    b'{"_id": "b\\tc", "text": "t"}': r"'_id' is 'b\\tc', with the control character U\+0009",
    b'{"_id": "%s", "text": "t"}' % (b"b" * 1025): "'_id' is 1025 bytes long; expected at most",
    b'{"_id": "b", "text": null}': "'text' is null; expected a string",
    b'{"_id": "b", "text": "t", "title": 3}': "'title' is an integer; expected a string",
    b'{"_id": "b", "text": "\\u0000"}': "'text' holds a NUL character at position 1",
    b'{"_id": "b", "text": "t\\ud800"}': r"half of a surrogate pair \(U\+D800\) at position 2",
    b'{"_id": "b", "text": "t", "n": "\\udfff"}': r"'n' holds half of a surrogate pair",
    b'{"_id": "b", "text": "t", "n": ["\\ud800"]}': "'n' holds half of a surrogate pair",
    b'{"_id": "b", "text": "\x00"}': "a NUL byte at byte 23 of the line",
    b'{"_id": "b", "text": "\xe9"}': "not UTF-8: byte 0xe9 at byte 23 of the line",
    b'{"_id": "b", "text": "t", "n": 1, "metadata": {"n": 2}}': "'n' is a field and also an entry",
}


class TestBadRecords:
    @pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40].decode("latin-1"))
    def test_a_bad_line_is_named_with_what_is_accepted(self, write, good_line, line):
        path = write("c.jsonl", good_line + b"\n" + line + b"\n")
        with pytest.raises(RecordError, match=BAD_LINES[line]) as caught:
            list(read_corpus(path))
        assert caught.value.line == 3
        assert str(caught.value).startswith(f"{path}:3: ")
        assert str(caught.value).endswith("or pass --skip-bad to count such records and go on")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40].decode("latin-1"))
    def test_a_bad_line_can_be_skipped(self, write, good_line, line):
        corpus = read_corpus(write("c.jsonl", line + b"\n" + good_line), skip_bad=True)
        assert list(corpus) == [A]
        assert corpus.skipped == 1

    def test_an_id_that_comes_again_is_named_with_its_line(self, write_jsonl):
        path = write_jsonl(
            {"id": 5, "text": "x"}, {"id": "6", "text": "y"}, {"id": "5", "text": ""}
        )
        with pytest.raises(DuplicateIdError, match=r":3: the id '5' belongs to an earlier record"):
            list(read_corpus(path))

    @pytest.mark.parametrize("doc_id", ["Größe", "入門書", "🎉"])
    def test_a_message_shows_the_letters_of_any_script(self, write_jsonl, doc_id):
        path = write_jsonl({"id": doc_id, "text": "x"}, {"id": doc_id, "text": "y"})
        with pytest.raises(DuplicateIdError, match=f"the id '{doc_id}' belongs"):
            list(read_corpus(path))

    @pytest.mark.parametrize("hostile", ["\x1b[2J", "\u202e", "\n", "\u2028"])
    def test_a_message_escapes_what_steers_a_terminal(self, write_jsonl, hostile):
        path = write_jsonl({"id": f"a{hostile}", "text": "x"}, {"id": f"a{hostile}", "text": "y"})
        with pytest.raises(RecordError) as caught:
            list(read_corpus(path))
        assert hostile not in str(caught.value)

    def test_the_id_of_a_skipped_record_stays_free(self, write_jsonl):
        path = write_jsonl({"id": "a", "text": 3}, {"id": "a", "text": "first"})
        assert list(read_corpus(path, skip_bad=True)) == [A]

    def test_an_overlong_line_is_refused_and_passed_over(self, write, good_line, monkeypatch):
        monkeypatch.setattr("retrieval.corpus.lines.MAX_RECORD_BYTES", 1 << 20)
        path = write("c.jsonl", b'"' + b"x" * (3 << 20) + b'"\n' + good_line)
        corpus = read_corpus(path, skip_bad=True)
        assert list(corpus) == [A]
        assert corpus.first_skipped == (
            f"{path}:1: the line is longer than 1 MiB, which is the limit",
        )

    def test_bad_csv_rows_are_skipped_one_by_one(self, write):
        data = b'id,text\n1,a\n2\n3,"q"r\n4,\xff\n5,\x00\n6,b\n7,"open\n'
        corpus = read_corpus(write("c.csv", data), skip_bad=True)
        assert [document.doc_id for document in corpus] == ["1", "6"]
        lines = [int(message.split("c.csv:")[1].split(":")[0]) for message in corpus.first_skipped]
        assert lines == [3, 4, 5, 6, 8]

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            (b"id,lines\n", r"c\.csv:2: no field is known to hold the text; the fields are 'id'"),
            (b"id,text,id\n", "two columns are called 'id'"),
            (b"id,\xff\n", "not UTF-8"),
        ],
    )
    def test_a_bad_header_is_not_skipped(self, write, header, message):
        with pytest.raises(RecordError, match=message):
            list(read_corpus(write("c.csv", header + b"1,2\n"), skip_bad=True))

    def test_parquet_text_that_is_not_utf8_is_one_bad_row(self, tmp_path):
        text = pa.array([b"x", b"\xff", b"z"], pa.binary()).view(pa.string())
        pq.write_table(pa.table({"id": ["1", "2", "3"], "text": text}), tmp_path / "c.parquet")
        corpus = read_corpus(tmp_path / "c.parquet", skip_bad=True)
        assert [document.doc_id for document in corpus] == ["1", "3"]
        assert "c.parquet:2: not UTF-8: byte 0xff" in corpus.first_skipped[0]

    def test_a_bad_text_file_is_named_with_line_and_byte(self, write, tmp_path):
        write("docs/a.txt", b"one\ntwo \xff")
        with pytest.raises(
            RecordError, match=r"docs/a\.txt: not UTF-8: byte 0xff at byte 5 of line 2"
        ):
            list(read_corpus(tmp_path / "docs"))


class TestBadSources:
    def test_a_missing_file_names_the_nearest(self, write, tmp_path):
        write("corpus.jsonl", b"")
        with pytest.raises(SourceNotFoundError, match=r"Did you mean '.*/corpus\.jsonl'\?"):
            read_corpus(tmp_path / "corpsu.jsonl")

    def test_a_missing_folder_is_said_to_be_missing(self, tmp_path):
        with pytest.raises(SourceNotFoundError, match=r"The folder '.*' does not exist either"):
            read_corpus(tmp_path / "no" / "c.jsonl")

    def test_a_misspelt_builtin_is_corrected(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SourceNotFoundError, match="Did you mean 'python-stdlib'"):
            read_corpus("python-stdlb")

    @pytest.mark.parametrize("name", ["c.json", "c.parquet.gz", "c.png", "corpus"])
    def test_an_unknown_extension_lists_what_is_accepted(self, write, name):
        with pytest.raises(UsageError, match=r"Expected a \.jsonl, \.ndjson, \.csv or \.tsv file"):
            read_corpus(write(name, b""))

    def test_an_empty_name_is_refused(self):
        with pytest.raises(UsageError, match="empty name"):
            read_corpus("")

    @pytest.mark.parametrize(
        ("name", "data"),
        [("c.jsonl", b""), ("c.jsonl", b"\n \n"), ("c.csv", b""), ("c.csv", b"id,text\n")],
    )
    def test_a_corpus_without_records_is_an_error(self, write, name, data):
        with pytest.raises(EmptyCorpusError, match="it holds no record"):
            list(read_corpus(write(name, data)))

    def test_a_corpus_of_bad_records_says_how_many_and_shows_the_first(self, write):
        corpus = read_corpus(write("c.jsonl", b"1\n2\n"), skip_bad=True)
        with pytest.raises(
            EmptyCorpusError, match=r"2 records were bad and skipped\. The first: .*:1: the line is"
        ):
            list(corpus)

    def test_a_folder_without_text_files_names_what_is_accepted(self, write, tmp_path):
        write("docs/image.png", b"")
        with pytest.raises(EmptyCorpusError, match=r"\.txt, \.md, \.rst"):
            read_corpus(tmp_path / "docs")

    @pytest.mark.parametrize("name", ["c.jsonl", "c.csv", "c.tsv", "c.jsonl.gz"])
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (gzip.compress(b'{"id":1,"text":"x"}\n', mtime=0), "gzip data; unpack it"),
            (b"BZh91AY&SY\0", "bzip2 data; unpack it"),
            (b"PK\3\4\n", "a zip archive; unpack it, or"),
            (b"%PDF-1.4\n", "a PDF; let its name end in .pdf"),
            (b"PAR1\x15\0\n", "Parquet; let its name end in .parquet"),
            (b"SQLite format 3\0", "a database of SQLite; read it with --sql"),
        ],
    )
    def test_a_file_that_is_no_text_is_named_by_what_it_is(self, write, name, data, words):
        path = write(name, gzip.compress(data) if name.endswith(".gz") else data)
        with pytest.raises(RecordError, match=f"{name}: its content is {words}"):
            list(read_corpus(path))

    @pytest.mark.parametrize(
        "data",
        [b"plain", gzip.compress(b'{"id":1,"text":"x"}\n' * 9, mtime=0)[:-9]],
        ids=["plain", "cut"],
    )
    def test_damaged_gzip_data_is_a_failure(self, write, data):
        with pytest.raises(FailureError, match="gzip data is damaged or cut off"):
            list(read_corpus(write("c.jsonl.gz", data), skip_bad=True))

    @pytest.mark.parametrize("data", [b"", b"PAR1 and so on", b"x" * 1000])
    def test_a_damaged_parquet_file_is_a_failure(self, write, data):
        corpus = read_corpus(write("c.parquet", data), skip_bad=True)
        with pytest.raises(FailureError, match="cannot be read as Parquet"):
            list(corpus)
        with pytest.raises(FailureError, match="cannot be read as Parquet"):
            _ = corpus.count_hint

    def test_a_file_that_may_not_be_read_is_a_storage_error(self, write, good_line, monkeypatch):
        path = write("c.jsonl", good_line)

        def refuse(*_args, **_options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)  # a mode of 000 would not stop root
        with pytest.raises(StorageError, match=r"c\.jsonl: cannot be read \(Permission denied\)"):
            list(read_corpus(path))

    def test_reading_csv_never_lowers_the_field_limit_of_the_process(self, write):
        before = csv.field_size_limit(1 << 30)
        try:
            list(read_corpus(write("c.csv", b"id,text\n1,x\n")))
            assert csv.field_size_limit() == 1 << 30
        finally:
            csv.field_size_limit(before)


class TestQueries:
    @pytest.mark.parametrize("id_field", ["_id", "query_id", "id", "qid"])
    @pytest.mark.parametrize("text_field", ["text", "query"])
    def test_jsonl_takes_every_documented_field(self, write_jsonl, id_field, text_field):
        path = write_jsonl({id_field: 1, text_field: "why?", "metadata": {}})
        assert list(read_queries(path)) == [Query("1", "why?")]

    @pytest.mark.parametrize("header", [b"", b"qid\ttext\n", b"query_id\tquery\n"])
    def test_tsv_works_with_and_without_a_header(self, write, header):
        path = write("q.tsv", header + b'1\t"why"?\n2\thow\n')
        assert list(read_queries(path)) == [Query("1", '"why"?'), Query("2", "how")]

    def test_a_tsv_row_of_three_columns_is_bad(self, write):
        with pytest.raises(RecordError, match=r"q\.tsv:2: the row has 3 columns"):
            list(read_queries(write("q.tsv", b"1\twhy\n2\thow\tno\n")))

    def test_a_beir_folder_is_read_from_its_queries_jsonl(self, write, tmp_path):
        write("queries.jsonl", b'{"_id": "1", "text": "why?"}\n')
        assert list(read_queries(tmp_path)) == [Query("1", "why?")]

    def test_a_folder_without_queries_says_so(self, tmp_path):
        with pytest.raises(SourceNotFoundError, match=r"holds no queries\.jsonl"):
            read_queries(tmp_path)

    def test_stdin_is_read(self, stdin):
        stdin(b'{"_id": "1", "text": "why?"}\n')
        assert next(read_queries("-")) == Query("1", "why?")

    def test_blank_and_repeated_queries_are_bad_and_can_be_skipped(self, write_jsonl):
        path = write_jsonl({"id": 1, "text": "x"}, {"id": 1, "text": "y"}, {"id": 2, "text": " "})
        queries = read_queries(path, skip_bad=True)
        assert list(queries) == [Query("1", "x")]
        assert queries.skipped == 2
        assert "the id '1' belongs to an earlier record" in queries.first_skipped[0]
        assert "'text' is blank" in queries.first_skipped[1]

    def test_no_query_at_all_is_an_error(self, write):
        with pytest.raises(EmptyCorpusError):
            list(read_queries(write("q.jsonl", b"")))


class TestTitles:
    @pytest.mark.parametrize(
        ("name", "text", "title"),
        [
            ("a.md", "text\n\n## Second level\n# First", "Second level"),
            ("a.md", "```\n# comment\n```\nHead\n====\n", "Head"),
            ("a.md", "---\ndraft: true\n---\n# Real\n", "Real"),
            ("a.md", "#hashtag\n\n---\n", ""),
            ("a.rst", "Head\n----\n", "Head"),
            ("a.rst", "Longer head\n---\n", ""),
            ("a.txt", "# Not a heading", ""),
        ],
    )
    def test_the_first_heading_is_the_title(self, write, name, text, title):
        (document,) = read_corpus(write(name, text.encode()))
        assert document.title == title


class TestIdSet:
    @given(st.lists(st.text(alphabet="abc", max_size=4), max_size=300))
    def test_it_answers_as_a_set_does(self, ids):
        ours, theirs = IdSet(), set()
        for identifier in ids:
            assert ours.add(identifier) == (identifier not in theirs)
            theirs.add(identifier)
        assert len(ours) == len(theirs)

    def test_it_stays_right_and_small_while_its_tables_grow(self):
        ids = IdSet()
        assert all(ids.add(f"document {number}") for number in range(100_000))
        assert not any(ids.add(f"document {number}") for number in range(100_000))
        assert len(ids) == 100_000
        assert ids.size_bytes < 20 * 100_000


def test_no_reader_opens_a_file_before_iteration(write, good_line, monkeypatch):
    path = write("c.jsonl", good_line)

    def refuse(*_args, **_options):
        raise AssertionError("opened")

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    corpus = read_corpus(path)
    assert corpus.name == str(path)
    assert corpus.count_hint is None


def test_json_records_survive_a_round_trip(write_jsonl):
    records = [{"_id": f"{n}", "text": json.dumps({"n": n}), "title": "é\u2028"} for n in range(3)]
    documents = list(read_corpus(write_jsonl(*records)))
    assert [{"_id": d.doc_id, "text": d.text, "title": d.title} for d in documents] == records
