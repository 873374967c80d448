"""Each format becomes text, headings and fields; what cannot be read is named."""

import gzip
import json
import logging
import os
import zipfile
from email.message import EmailMessage

import fpdf
import openpyxl
import pytest
import xlwt

from retrieval import Document, read_corpus
from retrieval.corpus.documents import base, registry
from retrieval.errors import RecordError, UsageError
from retrieval.passages import read_passages
from tests.retrieval.documents import made


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    corpus = read_corpus(made.write_folder(tmp_path_factory.mktemp("made") / "all"))
    found = {document.doc_id.removeprefix("all/"): document for document in corpus}
    return found, corpus


def places(document):
    """Return the headings and page that each word-wise passage of a document has."""
    passages = read_passages([document], lambda text: [text])
    return [(one.text.split()[-1], one.metadata.get("heading")) for one in passages]


@pytest.mark.parametrize(
    ("name", "title", "ends"),
    [
        ("bread.rst", "Bread", [("degrees.", "Bread > Ovens")]),
        ("carts.atom", "Carts", [("axles.", "Carts > Axles")]),
        (
            "guide.md",
            "The pond guide",
            [
                ("knows.", "Guide"),
                ("key.", "Guide > Install > Windows"),
                ("lever.", "Guide > Install > Linux"),
            ],
        ),
        ("hedges.odt", "Hedges", [("March).", "Hedges > Care")]),
        ("herons.html", "Herons", [("weir.", "Herons"), ("trees.", "Herons > Nests")]),
        ("inbox.mbox/<f1@x>", "Flood", [("feet.", None)]),
        ("ledger.docx", "Ledger", [("Ledger", "Ledger"), ("shillings", "Wages")]),
        ("letter.eml", "Repairs", [("larch.", None)]),
        (
            "mill.py",
            "mill.py",
            [
                ("math", None),
                ('mill."""', "Mill"),
                ("corn", "Mill > grind"),
                ("radius**2", "area"),
            ],
        ),
        ("notes.txt", "", [("dawn.", None)]),
        ("rain.ipynb", "Rainfall", [("rain.plot()", "Rainfall")]),
        (
            "sacks.msg",
            "Sacks",
            [("Sacks", "Email Message"), ("hemp.", "Email Message > Content")],
        ),
        ("tales.epub", "River tales", [("eels.", "The ferry")]),
        ("toads.pptx", "Toads", [("March.", "Toads"), ("stay.", "Newts")]),
        ("toll.go", "toll.go", [("tolls", None), ("}", "Toll")]),
        ("wheels.rss", "Wheels", [("All", "Wheels"), ("**floats**.", "Wheels > Floats")]),
        ("weir.pdf", "Chapter 1", [("piles.", "Chapter 1"), ("April.", "Chapter 2")]),
    ],
)
def test_passages_of_every_format_have_their_headings(documents, name, title, ends):
    document = documents[0][name]
    assert document.title == title
    assert places(document) == ends


def test_nothing_else_is_read(documents):
    found, corpus = documents
    assert len(found) == 18
    assert corpus.notes == ("1 attachment of an e-mail is not read.",)
    everything = " ".join(document.text for document in found.values())
    for left_out in ("trap", "About", "Imprint", "secret", "Contents", "tags:"):
        assert left_out not in everything


def test_several_attachments_are_counted_as_several(tmp_path):
    letter = EmailMessage()
    letter["subject"] = "Wheels"
    letter.set_content("See both pictures.")
    for name in ("one.png", "two.png"):
        letter.add_attachment(b"bytes", maintype="image", subtype="png", filename=name)
    (tmp_path / "letter.eml").write_bytes(letter.as_bytes())
    corpus = read_corpus(tmp_path / "letter.eml")
    assert [document.title for document in corpus] == ["Wheels"]
    assert corpus.notes == ("2 attachments of e-mails are not read.",)


def test_what_files_say_of_themselves_is_metadata(documents):
    guide = documents[0]["guide.md"].metadata
    assert guide["tags"] == ["water", "sluice"]
    assert guide["written"] == "2024-05-01"
    assert guide["path"] == "all/guide.md"
    assert guide["modified"].endswith("+00:00")
    mouse = documents[0]["inbox.mbox/<m2@x>"].metadata
    assert (mouse["from"], mouse["date"]) == ("Ada <ada@mill.example>", "2024-05-01T10:00:00+02:00")


def test_pages_are_those_where_passages_begin(documents):
    passages = read_passages([documents[0]["weir.pdf"]], lambda text: [text])
    assert [one.metadata["page"] for one in passages] == [1, 2]


def test_passages_add_up_to_the_text_and_say_where_they_begin(documents):
    for document in documents[0].values():
        passages = list(read_passages([document], lambda text: [text]))
        assert "".join(one.text for one in passages) == document.text
        starts = [int(one.doc_id.rpartition("@")[2]) for one in passages]
        assert all(
            document.text.startswith(one.text, start)
            for one, start in zip(passages, starts, strict=True)
        )


@pytest.mark.parametrize(
    ("front", "metadata", "left"),
    [
        ("---\na: 1\n---\ntext", {"a": 1}, "text"),
        ("---\r\na: {b: c}\r\n---\r\ntext", {"a": '{"b": "c"}'}, "text"),
        ("---\npath: mine\nheading: no\nb: 1\n...\ntext", {"b": 1}, "text"),
        ("---\nJust a line.\n---\ntext", {}, "---\nJust a line.\n---\ntext"),
        ("---\n---\ntext", {}, "---\n---\ntext"),
        ("text\n---\na: 1\n---\n", {}, "text\n---\na: 1\n---\n"),
    ],
)
def test_front_matter(write, front, metadata, left):
    (document,) = read_corpus(write("docs/a.md", front.encode()))
    own = ("path", "modified", "size_bytes")
    rest = {k: v for k, v in document.metadata.items() if k not in own}
    assert (rest, document.text) == (metadata, left)
    assert document.metadata["path"] == "docs/a.md"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\ntitle: 1984\n---\n# Head\n", "1984"),
        ("---\ntitle: 2024-05-01\n---\n# Head\n", "2024-05-01"),
        ("---\ntitle: 10:30\n---\n# Head\n", "10:30"),
        ("---\ntitle: yes\n---\n# Head\n", "yes"),
        ("---\ntitle: 'a: b'\n---\n# Head\n", "a: b"),
        ("---\na: &a {title: b}\n<<: *a\n---\n# Head\n", "b"),
        ("---\na: &a {title: 5}\n<<: *a\n---\n# Head\n", "Head"),
        ("---\ntitle:\n---\n# Head\n", "Head"),
        ("---\ntitle: ''\n---\n# Head\n", "Head"),
        ("---\ntitle: [a]\n---\n# Head\n", "Head"),
        ("---\n---\ntext", ""),
        ("above\n\n---\n---\n\nHead\n---\n", "Head"),
    ],
)
def test_a_title_is_what_was_written_or_the_first_heading(write, text, title):
    (document,) = read_corpus(write("docs/a.md", text.encode()))
    assert document.title == title


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(3 << 20))


def bad_mbox(path):
    path.write_bytes(
        b"From a\nSubject: one\n\nA good message.\n\nFrom b\nSubject: two\n"
        b'Content-Type: multipart/mixed; boundary="x"\n\nno part begins here\n'
    )


def scanned(path):
    pdf = fpdf.FPDF()
    pdf.add_page()
    pdf.rect(10, 10, 50, 50)
    pdf.output(path)


def encrypted(path):
    pdf = fpdf.FPDF()
    pdf.set_encryption(owner_password="o", user_password="u")
    pdf.add_page()
    pdf.output(path)


BAD = {
    "scan.pdf": (scanned, "no page holds text.*ocrmypdf"),
    "locked.pdf": (encrypted, "it is encrypted; save it again without a password"),
    "cut.pdf": (lambda path: path.write_bytes(b"%PDF-1.7\n1 0 obj"), "cannot be read as PDF"),
    "bomb.docx": (bomb, "it unpacks to 3 MiB in 1 parts; the limit is 1 MiB"),
    "old.docx": (lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0" * 9), "encrypted, or of an Off"),
    "cut.docx": (lambda path: path.write_bytes(b"PK\3\4"), "it is damaged"),
    "cut.epub": (lambda path: path.write_bytes(b"PK\3\4"), "it is damaged"),
    "no.ipynb": (lambda path: path.write_text("[1]"), "it is no Jupyter notebook"),
    "bad.mbox": (bad_mbox, "message 2 cannot be read .a part is broken"),
    "front.md": (lambda path: path.write_text("---\na: [\n---\n"), "no YAML on line"),
    "nul.html": (lambda path: path.write_bytes(b"<p>a\0b"), "a NUL byte"),
    "really.txt": (lambda path: path.write_bytes(b"%PDF-1.4\n%\xe2\xe3"), "content is a PDF; let"),
    "really.html": (lambda path: path.write_bytes(gzip.compress(b"<p>")), "content is gzip data"),
    "long.txt": (lambda path: path.write_bytes(b"x" * (2 << 20)), "longer than 1 MiB"),
}


@pytest.fixture
def low_limits(monkeypatch):
    monkeypatch.setattr(base, "MAX_UNPACKED_BYTES", 1 << 20)
    monkeypatch.setattr(base, "MAX_RECORD_BYTES", 1 << 20)


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path, name, low_limits):
    write, problem = BAD[name]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/z.md").write_text("# Good")
    write(tmp_path / "docs" / name)
    with pytest.raises(RecordError, match=problem) as caught:
        list(read_corpus(tmp_path / "docs"))
    assert str(caught.value).startswith(f"{tmp_path / 'docs' / name}: ")
    assert "\n" not in str(caught.value)
    corpus = read_corpus(tmp_path / "docs", skip_bad=True)
    assert [one.doc_id for one in corpus][-1] == "docs/z.md"
    assert corpus.skipped == 1


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_an_mbox_does_to_lines_that_begin_with_from_is_undone(tmp_path, line_end):
    lines = ["From a", "Subject: s", "", ">From here.", ">>From there.", "> From", ""]
    (tmp_path / "in.mbox").write_bytes(line_end.join(lines).encode())
    (document,) = read_corpus(tmp_path / "in.mbox")
    assert document.text.split("\n") == ["From here.", ">From there.", "> From"]


def test_a_page_that_cannot_be_read_is_named_and_the_other_pages_are_read(tmp_path, monkeypatch):
    from pypdf import PageObject

    made.write_pdf(tmp_path / "a.pdf", "one", "two", "three")
    real = PageObject.extract_text

    def fail_on_two(page):
        text = real(page)
        if "two" in text:
            raise KeyError("/Font")
        return text

    monkeypatch.setattr(PageObject, "extract_text", fail_on_two)
    corpus = read_corpus(tmp_path / "a.pdf", skip_bad=True)
    (document,) = corpus
    assert document.text.split() == ["one", "three"]
    assert "page 2 cannot be read (KeyError" in corpus.first_skipped[0]


def test_a_file_that_changes_while_it_is_read_is_refused(write, monkeypatch):
    path = write("docs/a.txt", b"text")
    real = os.fstat

    def touched(number):
        os.utime(path, ns=(1, real(number).st_mtime_ns + 1))
        return real(number)

    monkeypatch.setattr(base.os, "fstat", touched)
    with pytest.raises(RecordError, match="it changed while it was read"):
        list(read_corpus(path))


def test_html_is_read_however_deep_or_wide_it_is(write):
    deep = b"<div>" * 20_000 + b"inside" + b"</div>" * 20_000
    assert next(iter(read_corpus(write("deep.html", deep)))).text == "inside"
    wide = b"<p>word</p>" * 20_000
    assert next(iter(read_corpus(write("wide.html", wide)))).text.count("word") == 20_000


@pytest.mark.parametrize("name", ["a.rss", "a.atom", "a.msg"])
def test_what_markitdown_cannot_read_is_named_and_not_taken_for_text(write, name):
    with pytest.raises(RecordError, match=rf"{name}: cannot be read"):
        list(read_corpus(write(name, b"<rss> no feed and no mail")))


def test_a_format_whose_reader_is_not_installed_is_counted_with_its_command(write, monkeypatch):
    monkeypatch.setattr(registry, "_installed", lambda module: module != "pypdf")
    write("docs/a.md", b"x")
    path = write("docs/b.pdf", b"")
    corpus = read_corpus(path.parent)
    assert [one.doc_id for one in corpus] == ["docs/a.md"]
    assert (
        "1 .pdf, whose readers are not installed (pip install 'millpond[documents]')"
        in (corpus.notes[0])
    )
    with pytest.raises(UsageError, match=r"what reads \.pdf is not installed"):
        read_corpus(path)


class TestSheets:
    @pytest.fixture
    def book(self, tmp_path):
        book = openpyxl.Workbook()
        sheet = book.active
        sheet.append(["Article", "Description", "Price", "Since", None])
        sheet.append([17, "A millstone", 9.5, None, "a note"])
        sheet.append([18, "A sieve", 3, None])
        book.create_sheet("Old")
        path = tmp_path / "shop.xlsx"
        book.save(path)
        return path

    def test_rows_are_records_with_typed_fields(self, book):
        corpus = read_corpus(book, id="article")
        assert list(corpus) == [
            Document("17", "A millstone", metadata={"Price": 9.5, "Since": None}),
            Document("18", "A sieve", metadata={"Price": 3, "Since": None}),
        ]
        assert "only its first sheet is read, not 'Old'." in corpus.notes[0]

    def test_one_of_an_old_excel_is_read_alike(self, tmp_path):
        book = xlwt.Workbook()
        sheet = book.add_sheet("Shop")
        for row, cells in enumerate([("Article", "Description"), (17, "A millstone")]):
            for column, cell in enumerate(cells):
                sheet.write(row, column, cell)
        book.save(tmp_path / "shop.xls")
        assert list(read_corpus(tmp_path / "shop.xls", id="article")) == [
            Document("17", "A millstone")
        ]
        (tmp_path / "shop.xls").write_bytes(b"\xd0\xcf\x11\xe0")
        with pytest.raises(RecordError, match="cannot be read as a sheet"):
            list(read_corpus(tmp_path / "shop.xls", id="article"))

    def test_one_that_is_damaged_or_unpacks_too_far_is_refused(self, book, low_limits, tmp_path):
        bomb(tmp_path / "bomb.xlsx")
        with pytest.raises(RecordError, match="it unpacks to 3 MiB"):
            list(read_corpus(tmp_path / "bomb.xlsx"))
        both = read_corpus([tmp_path / "bomb.xlsx", book], id="article", skip_bad=True)
        assert [document.doc_id for document in both] == ["17", "18"]
        assert both.skipped == 1
        book.write_bytes(book.read_bytes()[:500])
        with pytest.raises(RecordError, match=r"shop\.xlsx: it is damaged"):
            list(read_corpus(book))


def test_what_word_stores_twice_or_has_deleted_is_read_once_or_not(tmp_path):
    main = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = """<w:p><w:pPr><w:pStyle w:val="berschrift1"/></w:pPr><w:r><w:t>Weirs</w:t></w:r></w:p>
    <w:p><w:r><w:t>Oa</w:t></w:r>
    <w:r><w:t>k </w:t></w:r><w:del><w:r><w:delText>trap</w:delText></w:r></w:del>
    <w:ins><w:r><w:t>piles</w:t><w:tab/><w:t>last</w:t></w:r></w:ins>
    <w:moveFrom><w:r><w:t>trap</w:t></w:r></w:moveFrom>
    <w:r><w:instrText>trap</w:instrText></w:r></w:p>
    <w:sdt><w:sdtContent><w:p><w:pPr><w:outlineLvl w:val="1"/></w:pPr><w:r><w:t>Repair</w:t></w:r>
    </w:p></w:sdtContent></w:sdt>
    <w:p><w:pPr><w:pStyle w:val="points"/></w:pPr><w:r><w:t>tar</w:t></w:r></w:p>
    <w:tbl><w:tr><w:tc><w:p><w:r><w:t>wood</w:t></w:r></w:p><w:p><w:r><w:t>oak</w:t></w:r></w:p>
    </w:tc><w:tc><w:p><w:r><w:t>9 ft</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"""
    styles = """<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
    <w:style w:styleId="points"><w:name w:val="Points"/><w:pPr><w:numPr/></w:pPr></w:style>"""
    parts = {
        "document": f"<w:body>{body}</w:body>",
        "styles": styles,
        "footnotes": "<w:footnote><w:p><w:r><w:t>A note.</w:t></w:r></w:p></w:footnote>",
    }
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as book:
        for name, inner in parts.items():
            book.writestr(f"word/{name}.xml", f'<w:{name} xmlns:w="{main}">{inner}</w:{name}>')
    (document,) = read_corpus(tmp_path / "a.docx")
    assert document.text == "Weirs\n\nOak piles last\n\nRepair\n\n- tar\n\nwood oak 9 ft\n\nA note."
    assert [section.heading for section in document.sections] == ["Weirs", "Weirs > Repair"]


def test_json_of_a_notebook_of_format_3_is_read(write):
    cells = [{"cell_type": "markdown", "source": "# Old"}, {"cell_type": "code", "input": "x = 1"}]
    path = write("a.ipynb", json.dumps({"worksheets": [{"cells": cells}]}).encode())
    assert next(iter(read_corpus(path))).text == "# Old\n\nx = 1"


def test_pypdf_is_silent(write, caplog):
    caplog.set_level(logging.WARNING)
    list(read_corpus([write("a.pdf", b"%PDF-1.7\n1 0 obj"), write("b.md", b"x")], skip_bad=True))
    assert caplog.records == []


def test_what_stands_between_definitions_is_no_passage_of_its_own(write):
    code = b"class A:\n    class B:\n        def f(self):\n            pass\n\n"
    code += b"    def g(self):\n        pass\n\n\n@cache\ndef h():\n    pass\n"
    (document,) = read_corpus(write("a.py", code))
    assert places(document) == [
        ("A:", "A"),
        ("B:", "A > B"),
        ("pass", "A > B > f"),
        ("pass", "A > g"),
        ("pass", "h"),
    ]
