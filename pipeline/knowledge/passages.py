"""Files to passages: JSONL, a passage a line; Markdown, split by heading and paragraph."""

import json
import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from pydantic import Field, ValidationError

from pipeline.errors import KnowledgeError
from pipeline.job import Noun

LONGEST = 1200
"""Letters of a passage; a longer text becomes several."""
LINE_LIMIT = 1_000_000
"""Bytes of a line of JSONL."""
LABEL = 500
"""Letters of a title or a source."""

_URL = re.compile(r"(?:https?://|www\.)[^\s<>()\[\]\"']+", re.IGNORECASE)
_SPACES = re.compile(r"[^\S\n]+")
_PARAGRAPHS = re.compile(r"\n\s*\n")
_SENTENCES = re.compile(r"(?<=[.!?…。])\s+")
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


class BadText(Noun):
    """A text that could not be taken in, and why. `line` is 0 for a file as a whole."""

    file: str
    line: int
    reason: str


class Text(Noun):
    """A passage before it is stored."""

    text: str = Field(min_length=1)
    title: str = Field(default="", max_length=LABEL)
    source: str = Field(default="", max_length=LABEL)
    tags: tuple[str, ...] = Field(default=(), max_length=50)


def read_texts(path: Path) -> Iterator[Text | BadText]:
    """Every passage of a JSONL or Markdown file, or of all such files below a folder.

    Raises KnowledgeError where there is nothing of the kind.
    """
    if not path.exists():
        raise KnowledgeError(f"There is no {path}.")
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    known = [file for file in files if file.is_file() and file.suffix.lower() in READERS]
    if not known:
        raise KnowledgeError(f"{path} is, and holds, no file ending in {' '.join(READERS)}.")
    return chain.from_iterable(_read(file, file.relative_to(root).as_posix()) for file in known)


def _read(file: Path, name: str) -> Iterator[Text | BadText]:
    try:
        yield from READERS[file.suffix.lower()](file, name)
    except UnicodeDecodeError:
        yield BadText(file=name, line=0, reason="not valid UTF-8")
    except OSError as error:
        yield BadText(file=name, line=0, reason=str(error.strerror))


def _read_jsonl(file: Path, name: str) -> Iterator[Text | BadText]:
    with file.open("rb") as content:
        for number, line in enumerate(_lines(content), 1):
            if not line.strip():
                continue
            try:
                yield from _parse(line, name)
            except ValueError as error:
                yield BadText(file=name, line=number, reason=_reason(error))


def _lines(content: BinaryIO) -> Iterator[bytes]:
    """The lines, one that is too long cut right behind the limit."""
    while line := content.readline(LINE_LIMIT + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = content.readline(LINE_LIMIT)
        yield line


def _parse(line: bytes, name: str) -> list[Text]:
    if len(line) > LINE_LIMIT:
        raise ValueError(f"the line is longer than {LINE_LIMIT} bytes")
    try:
        content = json.loads(line.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("the line is nested too deep") from error
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - what the line says, not our mistake
    known = {key: content[key] for key in Text.model_fields if content.get(key) is not None}
    pieces = _pieces(Text.model_validate({"source": name} | known))
    if not pieces:
        raise ValueError("text: nothing is left without addresses and control characters")
    return pieces


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not valid UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error}"
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return str(error)


def _read_markdown(file: Path, name: str) -> Iterator[Text]:
    content = file.read_text(encoding="utf-8-sig")
    for headings, body in _sections(_FRONT_MATTER.sub("", content)):
        source = f"{name}#{headings[-1]}" if headings else name
        title = " > ".join(headings) or file.stem
        yield from _pieces(Text(text=body, title=title[:LABEL], source=source[:LABEL]))


def _sections(content: str) -> Iterator[tuple[list[str], str]]:
    """Each stretch of text with the headings that it stands under, outermost first."""
    path, body, fenced = dict[int, str](), list[str](), False
    for line in content.splitlines():
        fenced ^= _FENCE.match(line) is not None
        heading = None if fenced else _HEADING.match(line)
        if heading is None:
            body.append(line)
            continue
        if any(map(str.strip, body)):
            yield list(path.values()), "\n".join(body)
        level = len(heading[1])
        path = {depth: title for depth, title in path.items() if depth < level}
        path[level] = heading[2]
        body = []
    if any(map(str.strip, body)):
        yield list(path.values()), "\n".join(body)


def _pieces(text: Text) -> list[Text]:
    """The text cleaned, in passages of at most LONGEST letters."""
    tidy = text.model_copy(
        update={
            "title": _one_line(text.title),
            "source": _one_line(text.source, addresses=True),
            "tags": tuple(filter(None, map(_one_line, text.tags))),
        }
    )
    return [tidy.model_copy(update={"text": part}) for part in _split(_cleaned(text.text))]


def _split(text: str) -> list[str]:
    """Whole paragraphs packed together; one that is too long alone at its sentences or words."""
    packed = list[str]()
    for part, joint in _parts(text):
        if packed and len(packed[-1]) + len(joint) + len(part) <= LONGEST:
            packed[-1] += joint + part
        else:
            packed.append(part)
    return packed


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """The smallest parts needed, each with what joins it to the one before."""
    for paragraph in filter(None, map(str.strip, _PARAGRAPHS.split(text))):
        joint = "\n\n"
        for sentence in [paragraph] if len(paragraph) <= LONGEST else _SENTENCES.split(paragraph):
            for line in textwrap.wrap(sentence, LONGEST) if len(sentence) > LONGEST else [sentence]:
                yield line, joint
                joint = " "


def _cleaned(text: str) -> str:
    """Composed text without addresses, control characters and signs that hide text."""
    safe = "".join(c for c in unicodedata.normalize("NFC", text) if c == "\n" or not _hidden(c))
    lines = (_SPACES.sub(" ", line).strip() for line in _URL.sub("", safe).split("\n"))
    return "\n".join(lines).strip()


def _one_line(text: str, *, addresses: bool = False) -> str:
    bare = text if addresses else _URL.sub("", text)
    return " ".join("".join(" " if _hidden(c) else c for c in bare).split())


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs")


READERS: dict[str, Callable[[Path, str], Iterator[Text | BadText]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".md": _read_markdown,
    ".markdown": _read_markdown,
}
