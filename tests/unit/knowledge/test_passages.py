from pathlib import Path

import pytest

from pipeline.errors import KnowledgeError
from pipeline.knowledge.passages import LONGEST, BadText, Text, read_texts

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


def read(tmp_path: Path, content: str | bytes, name: str = "facts.jsonl") -> list[Text | BadText]:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_texts(path))


def test_jsonl(tmp_path: Path) -> None:
    content = (
        '{"text": "a", "title": "t", "source": "https://s/x", "tags": ["u", " "], "more": 1}\n'
        '\n{"text": "b", "title": null}\n'
    )
    assert read(tmp_path, content) == [
        Text(text="a", title="t", source="https://s/x", tags=("u",)),
        Text(text="b", source="facts.jsonl"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "text: Field required"),
        (b'{"text": ""}', "text: "),
        (b'{"text": 3}', "text: "),
        (b'{"text": "a", "tags": "b"}', "tags: "),
        (b'{"text": "http://a.b"}', "nothing is left"),
        (b'{"text": "caf\xe9"}', "not valid UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"text": "%s"}' % (b"a" * 1_000_001), "longer than"),
    ],
)
def test_a_bad_line_is_reported_and_the_rest_goes_in(tmp_path, line, reason) -> None:
    good, bad, last = read(tmp_path, b'{"text": "a"}\n' + line + b'\n{"text": "b"}')
    assert isinstance(bad, BadText)
    assert (bad.file, bad.line) == ("facts.jsonl", 2)
    assert reason in bad.reason
    assert [good, last] == [Text(text=t, source="facts.jsonl") for t in "ab"]


def test_what_is_cleaned(tmp_path: Path) -> None:
    content = r'{"text": "See  https://evil.example/x?y=1 \u202enow\u0000.\n\nCafe\u0301 www.a.b"}'
    (text,) = read(tmp_path, content)
    assert text.text == "See now.\n\nCafé"


def test_markdown(tmp_path: Path) -> None:
    texts = read(tmp_path, MARKDOWN, "book.md")
    assert [(text.title, text.source) for text in texts] == [
        ("book", "book.md"),
        ("Brand book > Viora", "book.md#Viora"),
        ("Brand book > Nexo", "book.md#Nexo"),
        ("Annex", "book.md#Annex"),
    ]
    assert texts[1].text.startswith("The logo is a *circle*.\n\nIt stands on teal.")
    assert "# no heading" in texts[1].text


@pytest.mark.parametrize(
    "body",
    [
        "\n\n".join(f"Paragraph {n} " + "word " * 30 for n in range(40)),
        " ".join(f"Sentence {n} of many." for n in range(400)),
        "word " * 2000,
        "x" * 5000,
    ],
)
def test_long_texts_become_several(tmp_path: Path, body: str) -> None:
    texts = read(tmp_path, body, "long.md")
    assert len(texts) == pytest.approx(len(body) / LONGEST, abs=3)
    assert all(len(text.text) <= LONGEST for text in texts)
    assert "".join("".join(text.text for text in texts).split()) == "".join(body.split())


def test_a_folder(tmp_path: Path) -> None:
    read(tmp_path, "# A\na", "notes/a.md")
    read(tmp_path, '{"text": "b"}', "notes/deep/b.jsonl")
    read(tmp_path, b"\xff", "notes/c.md")
    (tmp_path / "notes" / "picture.png").touch()
    one, bad, two = read_texts(tmp_path / "notes")
    assert (one.source, two.source) == ("a.md#A", "deep/b.jsonl")
    assert bad == BadText(file="c.md", line=0, reason="not valid UTF-8")


@pytest.mark.parametrize("name", ["missing.md", "facts.txt", "empty"])
def test_nothing_to_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "facts.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(KnowledgeError):
        read_texts(tmp_path / name)
