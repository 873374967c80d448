"""CSV and TSV files as spreadsheets write them; decimals and times of Parquet."""

import datetime
import decimal
import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval import Document, read_corpus
from retrieval.errors import RecordError
from retrieval.filters import evaluate_filter, infer_schema, parse_filter

TABLE = """id,text,year,price,in_stock,rating,code,day,tags,note
a,x,2020,1.5,true,4,007,2020-01-31,"[""s""]",
b,y,2022,2,FALSE,NA,12,,[],"n/a"
c,z,,,,,,,,
"""


def kinds(corpus):
    schema = infer_schema(document.metadata for document in corpus)
    return {name: str(kind) for name, kind in schema.types.items()}


class TestTypes:
    def test_a_column_has_the_type_of_all_its_cells(self, write):
        corpus = read_corpus(write("c.csv", TABLE.encode()))
        first, second, third = corpus
        assert first.metadata == {
            "year": 2020, "price": 1.5, "in_stock": True, "rating": 4, "code": "007",
            "day": "2020-01-31", "tags": ["s"], "note": None,
        }  # fmt: skip
        assert second.metadata["in_stock"] is False
        assert (second.metadata["rating"], second.metadata["note"]) == (None, "n/a")
        assert set(third.metadata.values()) == {None}
        assert kinds(corpus) == {
            "year": "int", "price": "float", "in_stock": "bool", "rating": "int",
            "code": "string", "day": "date", "tags": "list of string", "note": "string",
        }  # fmt: skip
        assert corpus.notes == (
            f"{corpus.name}: types found in its columns: year int, price float, in_stock bool, "
            "rating int, tags list.",
        )

    @pytest.mark.parametrize(
        ("written", "ids"),
        [
            ("year >= 2022", ["b"]),
            ("in_stock == true", ["a"]),
            ("rating == null", ["b", "c"]),
            ("price < 1.75", ["a"]),
            ('tags contains "s"', ["a"]),
        ],
    )
    def test_filters_on_a_csv_mean_what_they_say(self, write, written, ids):
        documents = list(read_corpus(write("c.csv", TABLE.encode())))
        rows = [document.metadata for document in documents]
        found = evaluate_filter(parse_filter(written), infer_schema(rows), rows)
        assert [d.doc_id for d, holds in zip(documents, found, strict=True) if holds] == ids

    @pytest.mark.parametrize(
        ("cells", "value"),
        [
            (["1", "2.5"], 1.0),
            (["1", "x"], "1"),
            (["01", "2"], "01"),  # a code, not a number
            (["true", "1"], "true"),
            (["nan", "1.5"], None),
            (["-inf", "1.5"], -1.7976931348623157e308),
            (["12345678901234567890", "1"], "12345678901234567890"),
            (["1e3", "2"], 1000.0),
        ],
    )
    def test_the_widest_cell_decides(self, write, cells, value):
        rows = "".join(f"{number},t,{cell}\n" for number, cell in enumerate(cells))
        (document, _) = read_corpus(write("c.csv", f"id,text,n\n{rows}".encode()))
        assert document.metadata == {"n": value}
        assert type(document.metadata["n"]) is type(value)

    def test_ids_and_texts_stay_as_they_are_written(self, write):
        corpus = read_corpus(write("c.csv", b"id,text,title\n007,42,1.50\n8,3,2\n"))
        assert list(corpus) == [Document("007", "42", "1.50"), Document("8", "3", "2")]
        assert all(type(d.text) is type(d.doc_id) is type(d.title) is str for d in corpus)

    def test_a_column_that_the_index_has_as_text_stays_text(self, write):
        path = write("c.csv", b"id,text,code,n\n1,t,12,12\n")
        (document,) = read_corpus(path, types={"code": "string", "n": "int"})
        assert document.metadata == {"code": "12", "n": 12}

    def test_parquet_decimals_are_numbers_and_times_iso_text(self, tmp_path):
        day = datetime.date(2020, 1, 31)
        columns = {
            "id": ["a"],
            "text": ["x"],
            "price": pa.array([decimal.Decimal("1.50")], pa.decimal128(9, 2)),
            "count": pa.array([decimal.Decimal("7")], pa.decimal128(9, 0)),
            "half": pa.array([0.5], pa.float16()),
            "day": pa.array([day]),
            "at": pa.array([1_580_428_800_000_000_123], pa.timestamp("ns", "UTC")),
        }
        pq.write_table(pa.table(columns), tmp_path / "c.parquet")
        (document,) = read_corpus(tmp_path / "c.parquet")
        assert document.metadata == {
            "price": 1.5, "count": 7, "half": 0.5, "day": "2020-01-31",
            "at": "2020-01-31T00:00:00+00:00",
        }  # fmt: skip


class TestDialects:
    @pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
    def test_the_delimiter_is_found(self, write, delimiter):
        lines = [["id", "text", "n"], ["1", '"one; two, three | four"', "2"], ["2", "x", "3"]]
        data = "\n".join(delimiter.join(line) for line in lines).encode()
        documents = list(read_corpus(write("c.csv", data)))
        assert documents[0] == Document("1", "one; two, three | four", metadata={"n": 2})

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "windows-1252"])
    @pytest.mark.parametrize("zipped", [False, True])
    def test_a_german_excel_file_is_read(self, write, encoding, zipped):
        data = "ID;Title;Text;Preis\n1;Mühle;Die Mühle mahlt für 3 €;1,5\n2;Fluß;x;2\n".encode(
            encoding
        )
        name = "c.csv.gz" if zipped else "c.csv"
        corpus = read_corpus(write(name, gzip.compress(data) if zipped else data))
        assert next(iter(corpus)) == Document(
            "1", "Die Mühle mahlt für 3 €", "Mühle", {"Preis": 1.5}
        )
        assert any("windows-1252" in note for note in corpus.notes) == (encoding == "windows-1252")

    def test_other_alphabets_are_told_by_their_letters(self, write):
        text = "Мельница мелет зерно для всей деревни и река вращает колесо"
        data = f"id,text\n1,{text}\n".encode("cp1251")
        corpus = read_corpus(write("c.csv", data))
        assert next(iter(corpus)).text == text
        assert "read as cp1251" in corpus.notes[0]

    def test_damage_in_a_utf8_file_is_no_other_encoding(self, write):
        data = "id,text\n1,Mühle\n".encode() + b"2,M\xfchle\n"
        with pytest.raises(RecordError, match=r"c\.csv:3: not UTF-8: byte 0xfc"):
            list(read_corpus(write("c.csv", data)))

    def test_an_encoding_can_be_named(self, write):
        path = write("c.csv", "id,text\n1,łódź\n".encode("cp1250"))
        corpus = read_corpus(path, encoding="cp1250")
        assert [document.text for document in corpus] == ["łódź"]
        assert corpus.notes == ()

    def test_ids_and_texts_without_a_header_are_records(self, write):
        corpus = read_corpus(write("c.tsv", b"0\tfirst text\n1\tsecond\n"))
        assert list(corpus) == [Document("0", "first text"), Document("1", "second")]
        assert "it has no header" in corpus.notes[0]

    def test_an_unknown_header_is_no_record(self, write):
        with pytest.raises(RecordError, match="no field is known to hold the text"):
            list(read_corpus(write("c.tsv", b"pk\twords\n1\tfirst text\n")))


class TestUnclosedQuotes:
    ROWS = 'id,text\n1,good\n2,"bad\n3,"fine"\n4,good\n5,"bad\n6,good\n'

    def test_each_is_one_bad_record_and_the_rest_is_read(self, write):
        corpus = read_corpus(write("a.csv", self.ROWS.encode()), skip_bad=True)
        # The quote of row 2 is closed by the first one of row 3: both are one broken record.
        assert [one.doc_id for one in corpus] == ["1", "4", "6"]
        assert corpus.skipped == 2
        assert (
            "a.csv:6: not valid CSV (a quote that opens in this record is never closed)"
            in (corpus.first_skipped[1])
        )


@pytest.mark.parametrize("sign", ["-", "NaN", "N/A"])
def test_a_column_of_nothing_but_signs_for_null_is_null_where_the_index_holds_numbers(write, sign):
    path = write("a.csv", f"id,text,year\n1,x,{sign}\n".encode())
    (document,) = read_corpus(path, types={"year": "int"})
    assert document.metadata == {"year": None}
    (document,) = read_corpus(path, types={"year": "string"})
    assert document.metadata == {"year": sign}


@pytest.mark.parametrize(
    ("head", "delimiter"), [("sep=;\r\n", ";"), ("\ufeffSEP=;\n", ";"), ("sep=\t\n", "\t")]
)
def test_excels_line_of_the_separator_is_heeded_and_no_header(write, head, delimiter):
    """Its first field has more commas than there are separators."""
    text = f"{head}id|text|price\na,1|x, y, z|1,5\nb,2|y|2\n".replace("|", delimiter)
    first, second = read_corpus(write("c.csv", text.encode()))
    assert (first.doc_id, first.text, first.metadata) == ("a,1", "x, y, z", {"price": 1.5})
    assert second.doc_id == "b,2"


def test_a_bad_row_after_it_is_named_by_its_own_line(write):
    with pytest.raises(RecordError, match=r"c\.csv:4"):
        list(read_corpus(write("c.csv", b"sep=;\nid;text\na;x\nb;y;z\n")))
