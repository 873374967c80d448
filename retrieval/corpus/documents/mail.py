"""E-mail: a message in .eml, and each message of an .mbox."""

from __future__ import annotations

import email
import email.policy
import mailbox
import re
from collections.abc import Iterator
from email.message import EmailMessage

from retrieval.corpus.documents.base import FileText, Opened, Problem, TextBuilder, UnreadableError
from retrieval.corpus.documents.html import add_html

_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_ATTACHMENT = ("attachment of an e-mail is", "attachments of e-mails are")


def read_eml(file: Opened) -> Iterator[FileText]:
    """Yield a message."""
    yield _read_message(file.data, file)


def read_mbox(file: Opened) -> Iterator[FileText | Problem]:
    """Yield each message, known by its Message-ID, and each one that cannot be read."""
    box = mailbox.mbox(file.path, create=False)
    seen: dict[str, int] = {}
    try:
        for number, key in enumerate(box.iterkeys(), start=1):
            try:
                found = _read_message(_unquote(box.get_bytes(key)), file)
            except Exception as error:
                yield Problem(f"message {number} cannot be read ({error})")
                continue
            part = found.part or str(number)
            seen[part] = seen.get(part, 0) + 1
            if seen[part] > 1:
                part = f"{part} ({seen[part]})"
            yield FileText(found.text, found.title, found.sections, found.metadata, part)
        if not seen:
            raise UnreadableError("it holds no message that begins with 'From '")
    finally:
        box.close()


def _unquote(data: bytes) -> bytes:
    """Return a message of an mbox, where "From " at the start of a line has a ">" before it."""
    end = _HEADERS_END.search(data)
    start = end.end() if end else len(data)
    return data[:start] + _QUOTED.sub(rb"\1", data[start:])


def _read_message(data: bytes, file: Opened) -> FileText:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    broken = [*message.defects, *(flaw for part in message.walk() for flaw in part.defects)]
    body = message.get_body(("plain", "html"))
    builder = TextBuilder()
    if body is not None:
        try:
            text = str(body.get_content())
        except LookupError as error:
            raise UnreadableError(f"its text is in an unknown encoding ({error})") from None
        if body.get_content_type() == "text/html":
            add_html(builder, text)
        else:
            builder.block(text.replace("\r\n", "\n").replace("\0", ""))
        broken += body.defects
    if broken:
        raise UnreadableError(f"a part is broken: {type(broken[0]).__name__}")
    file.left_out[_ATTACHMENT] += sum(1 for _ in message.iter_attachments())
    metadata: dict[str, object] = {
        name: str(message[name]) for name in ("from", "to", "cc") if message[name]
    }
    date = getattr(message["date"], "datetime", None)
    if date is not None:
        metadata["date"] = date
    identifier = str(message["message-id"] or "").strip()
    return builder.finish(str(message["subject"] or ""), metadata, identifier)
