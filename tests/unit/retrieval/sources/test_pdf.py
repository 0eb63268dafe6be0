import time
from io import BytesIO

import pytest
from pypdf import PdfWriter
from pypdf.generic import (
    DecodedStreamObject,
    DictionaryObject,
    NameObject,
)

from pipeline.retrieval.sources import files, pdf
from pipeline.retrieval.sources.texts import BadText, Text


def shown(words: str) -> bytes:
    return f"BT /F1 12 Tf 10 100 Td ({words}) Tj ET".encode()


def document(*contents: bytes, password: str = "", user: str = "") -> bytes:
    """A PDF whose pages have these streams."""
    writer = PdfWriter()
    names = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(k): NameObject(v) for k, v in names.items()})
    fonts = DictionaryObject({NameObject("/F1"): font})
    for content in contents:
        page = writer.add_blank_page(200, 200)
        stream = DecodedStreamObject()
        stream.set_data(content)
        page[NameObject("/Contents")] = writer._add_object(stream.flate_encode())
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    if password:
        writer.encrypt(user, password, algorithm="RC4-128")
    file = BytesIO()
    writer.write(file)
    return file.getvalue()


def test_each_page_of_a_pdf_gives_one_text(read) -> None:
    pages = document(shown("The logo is teal."), b"", shown("See https://a.b now"))
    assert read(pages, "book.pdf") == [
        Text(text="The logo is teal.", title="book", source="book.pdf#page=1"),
        Text(text="See now", title="book", source="book.pdf#page=3"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable PDF"),
        (b"%PDF-1.4\n" + bytes(5000), "not a readable PDF"),
        (document(shown("a"))[:-300], "not a readable PDF"),
        (document(shown("a"), password="p"), "encrypted"),
        (document(shown("a"), password="p", user="q"), "encrypted"),
        (document(b""), "no text was found"),
        (document(), "no text was found"),
    ],
)
def test_a_file_that_cannot_be_read(read, content: bytes, reason: str) -> None:
    (bad,) = read(content, "book.pdf")
    assert isinstance(bad, BadText)
    assert (bad.file, bad.line) == ("book.pdf", 0)
    assert reason in bad.reason


@pytest.mark.parametrize("content", [b" " * 20_000_000, shown("a") * 120_000])
def test_a_page_that_unfolds_to_too_much_is_left_out(read, content: bytes) -> None:
    first, bad, last = read(document(shown("a"), content, shown("b")), "book.pdf")
    assert bad.reason.startswith("page 2: ")
    assert [first.text, last.text] == ["a", "b"]


def test_any_damage_is_reported(read) -> None:
    whole = document(shown("one"), shown("two"))
    damaged = [whole[:at] + b"\xff(<" + whole[at + 3 :] for at in range(0, len(whole), 7)]
    found = [item for content in damaged for item in read(content, "book.pdf")]
    assert {type(item) for item in found} == {Text, BadText}


def test_a_pdf_is_read_up_to_bounds_on_pages_letters_bytes_and_time(
    read, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = document(shown("one"), shown("two"), shown("three"))
    monkeypatch.setattr(pdf, "PAGES", 2)
    assert "page 3 and later: more than 2 pages" in read(pages, "book.pdf")[-1].reason
    monkeypatch.setattr(pdf, "LETTERS", 5)
    one, bad = read(pages, "book.pdf")
    assert (one.text, bad.reason) == ("one", "page 2 and later: more than 5 letters")
    monkeypatch.setattr(pdf, "PDF_LIMIT", 1_000)
    assert "larger than" in read(pages, "book.pdf")[0].reason


def test_pages_made_to_take_long(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "SECONDS", 0.5)
    monkeypatch.setattr(files, "SECONDS", 0.5)
    writer = PdfWriter(BytesIO(document(*[b""] * 40)))
    stream = DecodedStreamObject()
    stream.set_data(b"BT (a) Tj ET " * 20_000)
    shared = writer._add_object(stream.flate_encode())
    for page in writer.pages:
        page[NameObject("/Contents")] = shared
    file = BytesIO()
    writer.write(file)

    start = time.monotonic()
    *_, bad = read(file.getvalue(), "book.pdf")
    assert isinstance(bad, BadText)
    assert bad.reason.endswith("and later: took longer than 0.5 s")
    assert time.monotonic() - start < 20
