"""Which fields of a record hold id, title and text: usual names, guesses that are told, options."""

import json

import pytest

from retrieval import Document, read_corpus
from retrieval.errors import RecordError, UsageError

MILL = "mills grind corn"
POND = "ponds hold water"


@pytest.mark.parametrize(
    ("records", "documents", "layout"),
    [
        (
            [{"ID": 1, "Title": "M", "Text": MILL}],
            [Document("1", MILL, "M")],
            {},
        ),
        (
            [{"url": "u", "headline": "M", "body": MILL}],
            [Document("u", MILL, "M")],
            {"id": "url", "title": "headline"},
        ),
        (
            [{"id": "1", "page_content": MILL, "metadata": {"source": "s"}}],
            [Document("1", MILL, metadata={"source": "s"})],
            {"text": "page_content"},
        ),
        (
            [{"id": 1, "question": "What?", "answer": MILL}],
            [Document("1", MILL, "What?")],
            {"title": "question", "text": "answer"},
        ),
        (
            [{"id": "c1", "doc_id": "d", "text": MILL}, {"id": "c2", "doc_id": "d", "text": POND}],
            [
                Document("c1", MILL, metadata={"doc_id": "d"}),
                Document("c2", POND, metadata={"doc_id": "d"}),
            ],
            {},
        ),
        (  # a name is also what a reader looks for
            [{"name": "Mill", "description": MILL}],
            [Document("Mill", MILL, "Mill")],
            {"id": "name", "title": "name", "text": "description"},
        ),
        (  # a field whose values repeat cannot be the id
            [{"key": "k", "url": "u", "text": MILL}, {"key": "k", "url": "v", "text": POND}],
            [
                Document("u", MILL, metadata={"key": "k"}),
                Document("v", POND, metadata={"key": "k"}),
            ],
            {"id": "url"},
        ),
    ],
)
def test_fields_are_found_by_name(write_jsonl, records, documents, layout):
    corpus = read_corpus(write_jsonl(*records))
    assert list(corpus) == documents
    kept = {role: name for role, name in corpus.layout.items() if role != "folders"}
    assert kept | {"title": kept.get("title", "@none")} == {"title": "@none"} | layout
    assert len(corpus.notes) == bool(layout)
    for field in layout.values():
        assert repr(field) in corpus.notes[0]


def test_the_layout_of_a_guess_reads_alike_where_the_guess_would_be_another(write_jsonl):
    first = read_corpus(write_jsonl({"url": "u", "description": MILL}))
    list(first)
    later = write_jsonl({"url": "v", "message": "no", "description": POND}, name="later.jsonl")
    (document,) = read_corpus(later, earlier=first.layout)
    assert (document.doc_id, document.text) == ("v", POND)
    assert [d.text for d in read_corpus(later)] == ["no"]


class TestIdsFromContent:
    def test_they_are_stable_and_told(self, write_jsonl):
        records = [{"text": MILL, "n": 1}, {"text": POND, "n": 1}]
        corpus = read_corpus(write_jsonl(*records))
        ids = [document.doc_id for document in corpus]
        assert len(set(ids)) == 2
        assert "the id from the content, so a changed record is a new document" in corpus.notes[0]
        again = read_corpus(write_jsonl(*reversed(records), name="again.jsonl"))
        assert [document.doc_id for document in again] == ids[::-1]

    def test_a_record_that_comes_again_is_left_out_and_counted(self, write_jsonl):
        corpus = read_corpus(write_jsonl({"text": MILL}, {"text": POND}, {"text": MILL}))
        assert [document.text for document in corpus] == [MILL, POND]
        assert corpus.notes[-1].endswith("1 record repeats an earlier one and was left out.")

    def test_null_ids_are_none(self, write_jsonl):
        corpus = read_corpus(write_jsonl({"id": None, "text": MILL}, {"id": None, "text": POND}))
        assert len({document.doc_id for document in corpus}) == 2

    def test_they_can_be_asked_for(self, write_jsonl):
        corpus = read_corpus(write_jsonl({"id": "x", "text": MILL}), id="@content")
        assert next(iter(corpus)).doc_id != "x"
        assert corpus.notes == ()


RECORD = {"meta": {"key": 7}, "head": "M", "Body": MILL, "more": POND, "year": 2020}


class TestNamedFields:
    @pytest.mark.parametrize(
        ("named", "text"),
        [
            ({"text": "body"}, MILL),
            ({"text": "body,more"}, f"{MILL}\n{POND}"),
            ({"text": ["more", "body"]}, f"{POND}\n{MILL}"),
            ({"text_template": "{head} ({year}): {Body} {{}}"}, f"M (2020): {MILL} {{}}"),
        ],
    )
    def test_they_may_be_several_nested_or_a_template(self, write_jsonl, named, text):
        corpus = read_corpus(write_jsonl(RECORD), id="meta.key", title="head", **named)
        (document,) = corpus
        assert (document.doc_id, document.title, document.text) == ("7", "M", text)
        assert document.metadata["year"] == 2020
        assert corpus.notes == ()

    def test_one_that_is_missing_is_refused_with_the_nearest(self, write_jsonl):
        with pytest.raises(RecordError, match=r"no field 'boby'; .*Did you mean 'Body'\?"):
            list(read_corpus(write_jsonl(RECORD), text="boby"))

    def test_one_that_a_later_record_lacks_is_that_records_fault(self, write_jsonl):
        path = write_jsonl({"pk": 1, "words": MILL}, {"pk": 2})
        with pytest.raises(RecordError, match=r":2: no text among 'pk'; expected one of words"):
            list(read_corpus(path, id="pk", text="words"))

    @pytest.mark.parametrize("template", ["no field", "{}", "{a", "{a:>3}", "{a!r}"])
    def test_a_template_holds_names_in_braces(self, write_jsonl, template):
        with pytest.raises(UsageError, match="text template"):
            read_corpus(write_jsonl(RECORD), text_template=template)

    def test_text_and_template_exclude_each_other(self, write_jsonl):
        with pytest.raises(UsageError, match="named twice"):
            read_corpus(write_jsonl(RECORD), text="Body", text_template="{Body}")

    def test_text_files_have_no_fields(self, write):
        with pytest.raises(UsageError, match="no fields to name"):
            read_corpus(write("a.md", b"# M"), text="body")


@pytest.mark.parametrize("name", ["text", "Contents", "body"])
def test_a_text_that_is_null_is_not_taken_for_an_unknown_field(write_jsonl, name):
    with pytest.raises(RecordError, match=f":1: '{name}' is null"):
        list(read_corpus(write_jsonl({"id": "1", name: None}, {"id": "2", name: None})))


def test_where_nothing_can_be_the_text_the_fields_are_listed_with_what_to_type(write_jsonl):
    path = write_jsonl({"pk": "1", "all words": MILL})
    with pytest.raises(RecordError, match=r"the fields are 'pk', 'all words'.*--text 'all words'"):
        list(read_corpus(path))


@pytest.mark.parametrize(
    ("number", "value"),
    [("NaN", None), ("1e999", 1.7976931348623157e308), ("-Infinity", -1.7976931348623157e308)],
)
def test_in_json_lines_too_nan_is_null_and_infinity_the_largest_number(write, number, value):
    line = f'{{"id": 1, "text": "t", "n": {number}, "list": [{number}]}}'.encode()
    (document,) = read_corpus(write("c.jsonl", line))
    assert document.metadata == {"n": value, "list": [value]}


def write(path, *records):
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_what_an_index_was_made_with_is_used_where_the_records_have_it(tmp_path):
    mixed = [
        write(tmp_path / "a.jsonl", {"id": "1", "text": "one"}),
        write(tmp_path / "b.jsonl", {"url": "u/2", "description": "two"}),
    ]
    first = read_corpus(mixed)
    expected = [(document.doc_id, document.text) for document in first]
    assert expected == [("1", "one"), ("u/2", "two")]
    for order in (mixed, mixed[::-1]):
        again = read_corpus(order, earlier=first.layout)
        assert sorted((one.doc_id, one.text) for one in again) == expected


def test_what_is_typed_comes_before_what_an_index_was_made_with_role_by_role(tmp_path):
    path = write(tmp_path / "a.jsonl", {"sku": "s", "id": "i", "a": "one", "b": "two"})
    earlier = {"id": "sku", "text": "a"}
    (document,) = read_corpus(path, text="b", earlier=earlier)
    assert (document.doc_id, document.text) == ("s", "two")
    (document,) = read_corpus(path, text_template="{a} {b}", earlier=earlier)
    assert (document.doc_id, document.text) == ("s", "one two")


def test_files_of_text_need_no_fields_of_an_earlier_layout(tmp_path):
    (tmp_path / "a.md").write_text("# A\ntext")
    (document,) = read_corpus(tmp_path / "a.md", earlier={"id": "sku", "folders": "[]"})
    assert document.doc_id == f"{tmp_path.name}/a.md"


@pytest.mark.parametrize("name", ["base64", "rot13", "idna", "utf-8\0", "nothing"])
def test_what_is_no_encoding_of_text_is_refused(name, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UsageError, match="no known encoding"):
        read_corpus(tmp_path / "a.txt", encoding=name)


@pytest.mark.parametrize("name", ["utf-8", "UTF-16", "windows-1252", "ascii", "latin1", "cp437"])
def test_encodings_of_text_are_taken(name, tmp_path):
    (tmp_path / "a.txt").write_bytes("x".encode(name))
    assert [one.text for one in read_corpus(tmp_path / "a.txt", encoding=name)] == ["x"]
