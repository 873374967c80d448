"""One file in each format, made by the libraries' own writers; each holds one answer."""

import json
import mailbox
import struct
import zipfile
from email.message import EmailMessage

import docx
import fpdf

MAIL = {"From": "Ada <ada@mill.example>", "To": "bob@mill.example"}

MARKDOWN = """---
title: The pond guide
tags: [water, sluice]
written: 2024-05-01
---
# Guide

What every miller knows.

## Install

### Windows

The sluice gate opens with a brass key.

### Linux

The sluice gate opens with a wooden lever.
"""
RST = """=====
Bread
=====

Ovens
-----

Rye loaves need a stone oven of two hundred degrees.
"""
HTML = """<!doctype html><html><head><meta charset="windows-1252"><title>Site - Herons</title>
<script>var trap = "never";</script></head><body><nav>Home About</nav><main><h1>Herons</h1>
<p>A heron waits \u2013 for an hour \u2013 beside the weir.</p><h2>Nests</h2>
<p>Herons nest<br>in alder trees.</p></main><footer>Imprint</footer></body></html>"""
PYTHON = '''"""Grinding."""

import math


class Mill:
    """A mill."""

    def grind(self, corn):
        """Return flour from corn between two granite stones."""
        return corn


def area(radius):
    """Return how much ground a millstone covers."""
    return math.pi * radius**2
'''
GO = """package tolls

// Toll returns what a barge pays at the lock.
func Toll(tons int) int { return tons * 3 }
"""


def write_text_files(folder):
    (folder / "notes.txt").write_text("Otters play in the tail race at dawn.")
    (folder / "guide.md").write_text(MARKDOWN)
    (folder / "bread.rst").write_text(RST)
    (folder / "herons.html").write_bytes(HTML.encode("windows-1252"))
    (folder / "mill.py").write_text(PYTHON)
    (folder / "toll.go").write_text(GO)
    cells = [
        {"cell_type": "markdown", "source": ["# Rainfall\n", "\n", "March was the wettest month."]},
        {"cell_type": "code", "source": "rain.plot()", "outputs": [{"text": "secret"}]},
    ]
    (folder / "rain.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4}))


def write_pdf(path, *pages, outline=True):
    pdf = fpdf.FPDF()
    pdf.set_font("helvetica", size=12)
    for number, text in enumerate(pages, start=1):
        pdf.add_page()
        if outline:
            pdf.start_section(f"Chapter {number}")
        pdf.multi_cell(0, text=text)
    pdf.output(path)


def write_docx(path):
    document = docx.Document()
    document.add_heading("Ledger", 0)
    document.add_heading("Wages", 1)
    document.add_paragraph("The miller's boy earns four shillings.")
    table = document.add_table(1, 2)
    table.rows[0].cells[0].text = "Carter"
    table.rows[0].cells[1].text = "six shillings"
    document.save(path)


def write_epub(path):
    package = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
    <metadata><dc:title>River tales</dc:title></metadata><manifest>
    <item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
    <item id="a" href="one%20two.xhtml" media-type="application/xhtml+xml"/></manifest>
    <spine><itemref idref="n"/><itemref idref="a"/></spine></package>"""
    container = """<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
    <rootfile full-path="OEBPS/book.opf"/></rootfiles></container>"""
    page = "<html><body><h1>The ferry</h1><p>The ferryman sang of eels.</p></body></html>"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("META-INF/container.xml", container)
        book.writestr("OEBPS/book.opf", package)
        book.writestr("OEBPS/nav.xhtml", "<html><body><p>Contents</p></body></html>")
        book.writestr("OEBPS/one two.xhtml", page)


def write_pptx(path, *slides):
    """Write slides of a title and a text; they are stored in the other order."""
    main = "http://schemas.openxmlformats.org/drawingml/2006/main"
    made = "http://schemas.openxmlformats.org/presentationml/2006/main"
    links = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    stored = range(len(slides), 0, -1)
    ids = "".join(f'<p:sldId id="{n}" r:id="r{n}"/>' for n in stored)
    targets = "".join(
        f'<Relationship Id="r{n}" Target="slides/slide{n}.xml"/>' for n in range(1, len(slides) + 1)
    )
    with zipfile.ZipFile(path, "w") as deck:
        deck.writestr(
            "ppt/presentation.xml",
            f'<p:presentation xmlns:p="{made}" xmlns:r="{links}"><p:sldIdLst>{ids}</p:sldIdLst>'
            "</p:presentation>",
        )
        deck.writestr(
            "ppt/_rels/presentation.xml.rels",
            f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            f"{targets}</Relationships>",
        )
        for number, (title, text) in zip(stored, slides, strict=True):
            shapes = "".join(
                f'<p:sp><p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr><p:txBody><a:p>'
                f"<a:r><a:t>{words}</a:t></a:r></a:p></p:txBody></p:sp>"
                for kind, words in (("title", title), ("body", text), ("sldNum", "trap"))
            )
            deck.writestr(
                f"ppt/slides/slide{number}.xml",
                f'<p:sld xmlns:p="{made}" xmlns:a="{main}"><p:cSld><p:spTree>{shapes}</p:spTree>'
                "</p:cSld></p:sld>",
            )


def write_odt(path):
    office = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"
    text = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "content.xml",
            f'<office:document-content xmlns:office="{office}" xmlns:text="{text}"><office:body>'
            "<office:text><text:tracked-changes><text:p>trap</text:p></text:tracked-changes>"
            '<text:h text:outline-level="1">Hedges</text:h><text:h text:outline-level="2">Care'
            "</text:h><text:p>Hazel<text:s/>is <text:span>cut</text:span> in<text:line-break/>"
            "February<text:note><text:note-body><text:p>(or March)</text:p></text:note-body>"
            "</text:note>.</text:p></office:text></office:body></office:document-content>",
        )


def message(subject, text, identifier="", html=False):
    made = EmailMessage()
    for name, value in {
        **MAIL,
        "Subject": subject,
        "Date": "Wed, 01 May 2024 10:00:00 +0200",
    }.items():
        made[name] = value
    if identifier:
        made["Message-ID"] = identifier
    made.set_content(text, subtype="html" if html else "plain")
    return made


def write_mail(folder):
    letter = message("Repairs", "The wheel's paddles are made of larch.")
    letter.add_attachment(b"bytes", maintype="image", subtype="png", filename="wheel.png")
    (folder / "letter.eml").write_bytes(letter.as_bytes())
    box = mailbox.mbox(folder / "inbox.mbox")
    box.add(message("Flood", "<p>The <b>flood</b> stood at nine feet.</p>", "<f1@x>", html=True))
    box.add(message("Mice", "Cats keep the granary free of mice.", "<m2@x>"))
    box.close()


def write_msg(path, **properties):
    """Write a mail of Outlook: a compound file with one stream per property, each 4096 bytes."""
    free, end, table = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
    streams = [text.ljust(2048).encode("utf-16-le") for text in properties.values()]
    names = [f"__substg1.0_{kind}001F" for kind in properties]
    entries = [("Root Entry", 5, 1, free, end, 0)]
    for number, name in enumerate(names, start=1):
        following = number + 1 if number < len(names) else free
        entries.append((name, 2, free, following, 2 + 8 * (number - 1), 4096))
    directory = b"".join(
        name.encode("utf-16-le").ljust(64, b"\0")
        + struct.pack("<HBBIII", 2 * len(name) + 2, kind, 1, free, right, child)
        + bytes(36)
        + struct.pack("<IQ", start, size)
        for name, kind, child, right, start, size in entries
    ).ljust(512, b"\0")
    chains = [table, end]  # the table of sectors itself, and the directory
    for number in range(len(streams)):
        first = 2 + 8 * number
        chains += [*range(first + 1, first + 8), end]
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack("<5H6x3I", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, 1)
    header += struct.pack("<6I", 0, 4096, end, 0, end, 0)
    header += struct.pack("<109I", 0, *[free] * 108)
    padded = struct.pack("<128I", *chains, *[free] * (128 - len(chains)))
    path.write_bytes(header + padded + directory + b"".join(streams))


def write_feeds(folder):
    item = "<title>Floats</title><description>Larch &lt;b&gt;floats&lt;/b&gt;.</description>"
    head = "<title>Wheels</title><description>All</description>"
    channel = f"<channel>{head}<item>{item}</item></channel>"
    (folder / "wheels.rss").write_text(f'<?xml version="1.0"?><rss version="2.0">{channel}</rss>')
    (folder / "carts.atom").write_text(
        '<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>Carts</title><entry>'
        "<title>Axles</title><summary>Ash axles.</summary></entry></feed>"
    )


def write_folder(folder):
    """Write one file in each of seventeen formats."""
    folder.mkdir()
    write_text_files(folder)
    write_pdf(folder / "weir.pdf", "The weir was built of oak piles.", "Ducks return in April.")
    write_docx(folder / "ledger.docx")
    write_epub(folder / "tales.epub")
    write_pptx(folder / "toads.pptx", ("Toads", "Toads cross in March."), ("Newts", "Newts stay."))
    write_odt(folder / "hedges.odt")
    write_mail(folder)
    write_msg(folder / "sacks.msg", **{"0037": "Sacks", "1000": "Sacks are made of hemp."})
    write_feeds(folder)
    return folder
