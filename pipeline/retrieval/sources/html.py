"""HTML: the text that a reader sees, cut at headings."""

import codecs
import re
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.retrieval.sources.cleaning import one_line
from pipeline.retrieval.sources.files import SECONDS, SourceFile, in_time
from pipeline.retrieval.sources.markup import tidied
from pipeline.retrieval.sources.sections import Heading, passages
from pipeline.retrieval.sources.texts import LABEL, Text, Unreadable
from pipeline.retrieval.sources.visibility import End, visible

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

HTML_LIMIT = 8_000_000
"""Bytes of a page; its tree takes some hundred times as much."""
_LEVELS = {f"h{level}": level for level in range(1, 7)}
_BREAKS = {"br": "\n", "dd": "\n", "dt": "\n", "li": "\n", "tr": "\n", "td": " ", "th": " "}
_BLOCKS = {"address", "article", "aside", "blockquote", "body", "details", "dialog", "div", "dl"}
_BLOCKS |= {"fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "main", "nav"}
_BLOCKS |= {"ol", "p", "pre", "section", "summary", "table", "ul", *_LEVELS}
_ENCODING = re.compile(
    r"(us-)?ascii|utf-?8|iso-8859-\d+|(windows-|cp)125\d|koi8-[ru]|gb\w+|big5|euc-\w+|shift_jis"
)
_START = 1024
"""Bytes within which a page says its encoding."""
_SPACES = re.compile(r"\s+")


def read(source: SourceFile) -> Iterator[Text]:
    """The passages. Raises UnicodeDecodeError, and Unreadable where it is, or takes, too much."""
    try:
        soup = _parsed(source.whole(HTML_LIMIT), time.monotonic() + SECONDS)
    except TimeoutError as error:
        raise Unreadable(str(error)) from error
    title = one_line(soup.title.get_text())[:LABEL] if soup.title else ""
    yield from passages(_parts(soup), source, title or source.title)


def _parsed(content: bytes, deadline: float) -> "BeautifulSoup":
    """The page's tree. Raises UnicodeDecodeError, and TimeoutError at the deadline."""
    from bs4 import BeautifulSoup
    from bs4.dammit import EncodingDetector

    class Page(BeautifulSoup):
        def handle_starttag(self, *place: Any, **more: Any) -> Any:
            in_time(deadline)
            return super().handle_starttag(*place, **more)

        def handle_endtag(self, *place: Any, **more: Any) -> None:
            in_time(deadline)
            super().handle_endtag(*place, **more)

    bare, marked = EncodingDetector.strip_byte_order_mark(content)
    declared = EncodingDetector.find_declared_encoding(bare[:_START], is_html=True)
    markup = bare.decode(marked or _codec(declared or ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # where an attribute stands twice, browsers go by the first
        return Page(tidied(markup), "html.parser", on_duplicate_attribute="ignore")


def _codec(declared: str) -> str:
    """The encoding that a page says it has; UTF-8 where that is none of a text."""
    try:
        return codecs.lookup(declared).name if _ENCODING.fullmatch(declared) else "utf-8"
    except LookupError:
        return "utf-8"


def _parts(page: "Tag") -> Iterator[str | Heading]:
    words, heading = list[str](), None
    for node in visible(page):
        if isinstance(node, str):
            words.append(_SPACES.sub(" ", node))
        elif heading is None and not isinstance(node, End) and node.name in _LEVELS:
            yield "".join(words)
            words, heading = [], node
        elif isinstance(node, End) and node.tag is heading:
            yield _heading(_LEVELS[heading.name], "".join(words))
            words, heading = [], None
        else:
            words.append(_break(node))
    yield "".join(words)


def _heading(level: int, title: str) -> str | Heading:
    """A heading, unless it is empty or, as one that is never closed, long."""
    label = one_line(title)
    return Heading(level, label) if 0 < len(label) <= LABEL else title


def _break(node: "Tag | End") -> str:
    if isinstance(node, End):
        return "\n\n" if node.tag.name in _BLOCKS else ""
    return "\n\n" if node.name in _BLOCKS else _BREAKS.get(node.name, "")
