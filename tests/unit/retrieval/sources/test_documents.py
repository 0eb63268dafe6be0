"""Markdown and plain text."""

import pytest

from pipeline.retrieval.sources.files import WHOLE_LIMIT
from pipeline.retrieval.sources.texts import Text

MARKDOWN = """---
front: matter
---
Before any heading.

# Brand book
## Viora ##
The logo is a *circle*.

It stands on teal.

```
# no heading
```
## Empty

## Nexo
A star.
# Annex
The end.
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_markdown_is_cut_at_its_headings(read, newline: str) -> None:
    texts = read("\ufeff" + MARKDOWN.replace("\n", newline), "book.md")
    assert [(text.title, text.source) for text in texts] == [
        ("book", "book.md"),
        ("Brand book > Viora", "book.md#Viora"),
        ("Brand book > Nexo", "book.md#Nexo"),
        ("Annex", "book.md#Annex"),
    ]
    assert texts[0].text == "Before any heading."
    assert texts[1].text.startswith("The logo is a *circle*.\n\nIt stands on teal.")
    assert "# no heading" in texts[1].text


def test_a_heading_of_spaces_takes_no_time(read) -> None:
    (text,) = read("# C# " + " " * 100_000 + "x ##\nA", "book.md")
    assert text.title == "C#"


def test_plain_text(read) -> None:
    assert read("\ufeff# No heading\r\n\r\nThe end. https://a.b\r\nFin.", "note.txt") == [
        Text(text="# No heading\n\nThe end.\nFin.", title="note", source="note.txt")
    ]


@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_documents_that_are_not_utf8_or_too_large_are_reported(read, name: str) -> None:
    assert [bad.reason for bad in read(b"caf\xe9", name)] == ["not valid UTF-8"]
    assert "larger than 16 MB" in read(b"x" * (WHOLE_LIMIT + 1), name)[0].reason
    assert read("", name) == []
