"""HTML: the text that a reader sees, cut at headings."""

import codecs
import re
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.retrieval.sources.cleaning import one_line
from pipeline.retrieval.sources.documents import Heading, passages
from pipeline.retrieval.sources.files import SECONDS, SourceFile, in_time
from pipeline.retrieval.sources.texts import LABEL, Text, Unreadable

if TYPE_CHECKING:
    from bs4.element import PageElement, Tag

HTML_LIMIT = 8_000_000
"""Bytes of a page; its tree takes some hundred times as much."""
_LEVELS = {f"h{level}": level for level in range(1, 7)}
_BREAKS = {"br": "\n", "dd": "\n", "dt": "\n", "li": "\n", "tr": "\n", "td": " ", "th": " "}
_BLOCKS = {"address", "article", "aside", "blockquote", "body", "details", "dialog", "div", "dl"}
_BLOCKS |= {"fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "main", "nav"}
_BLOCKS |= {"ol", "p", "pre", "section", "summary", "table", "ul", *_LEVELS}
_UNSEEN = {"audio", "canvas", "datalist", "embed", "head", "iframe", "noembed", "noframes"}
_UNSEEN |= {"noscript", "object", "script", "style", "svg", "template", "title", "video"}
_ENCODING = re.compile(
    r"(us-)?ascii|utf-?8|iso-8859-\d+|(windows-|cp)125\d|koi8-[ru]|gb\w+|big5|euc-\w+|shift_jis"
)
_START = 1024
"""Bytes at the start of a page that may declare its encoding."""
_SPACES = re.compile(r"\s+")
_ZERO = re.compile(r"[+-]?(0+(\.0*)?|\.0+)[a-z%]*")
_RELATIVE = re.compile(r"inherit|larger|smaller|.*(?<!r)em|.*(%|ex|ch)")
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
# Python's parser reads to the end of the page for each token that is not closed, so that a page
# made for it takes days. Here each part takes all that it has looked at.
_TOKEN = re.compile(
    r"""
      <!--.*?(?:-->|\Z)                                           # a comment
    | <[!?][^>]*(?:>|\Z)                                          # a declaration
    | <(?P<raw>script|style)(?=[\s/>]).*?(?:</(?P=raw)[^>]*(?:>|\Z)|\Z)
    | (?P<tag></?[a-z](?>=\s*(?:"[^"]*(?:"|\Z)|'[^']*(?:'|\Z))|[^>])*+(?:>|\Z))
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


def read(source: SourceFile) -> Iterator[Text]:
    """The passages. Raises UnicodeDecodeError, and Unreadable for a page that is too large or takes
    too long.
    """
    from bs4 import BeautifulSoup
    from bs4.dammit import EncodingDetector

    deadline = time.monotonic() + SECONDS

    class Page(BeautifulSoup):
        def handle_starttag(self, *place: Any, **more: Any) -> Any:
            in_time(deadline)
            return super().handle_starttag(*place, **more)

        def handle_endtag(self, *place: Any, **more: Any) -> None:
            in_time(deadline)
            super().handle_endtag(*place, **more)

    bare, marked = EncodingDetector.strip_byte_order_mark(source.whole(HTML_LIMIT))
    declared = EncodingDetector.find_declared_encoding(bare[:_START], is_html=True) or ""
    try:
        known = codecs.lookup(declared).name if _ENCODING.fullmatch(declared) else "utf-8"
    except LookupError:
        known = "utf-8"
    # without comments, declarations, scripts, styles and tags that are never closed
    markup = _TOKEN.sub(
        lambda found: found["tag"] if (found["tag"] or "").endswith(">") else "",
        bare.decode(marked or known),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # browsers go by the first of two attributes of one name
            page = Page(markup, "html.parser", on_duplicate_attribute="ignore")
        except TimeoutError as error:
            raise Unreadable(str(error)) from error
    title = one_line(page.title.get_text())[:LABEL] if page.title else ""
    yield from passages(_parts(page), source, title or source.title)


class _End(NamedTuple):
    """The end of an element."""

    tag: "Tag"


def _parts(page: "Tag") -> Iterator[str | Heading]:
    """The page's words and headings in order, with line breaks around blocks."""
    words, heading = list[str](), None
    for node in _visible(page):
        if isinstance(node, str):
            words.append(_SPACES.sub(" ", node))
        elif heading is None and not isinstance(node, _End) and node.name in _LEVELS:
            yield "".join(words)
            words, heading = [], node
        elif isinstance(node, _End) and node.tag is heading:
            title = "".join(words)
            label = one_line(title)
            # empty, or as long as one that is never closed: no heading
            is_heading = 0 < len(label) <= LABEL
            yield Heading(_LEVELS[heading.name], label) if is_heading else title
            words, heading = [], None
        else:
            name = node.tag.name if isinstance(node, _End) else node.name
            inline = "" if isinstance(node, _End) else _BREAKS.get(name, "")
            words.append("\n\n" if name in _BLOCKS else inline)
    yield "".join(words)


class _Style(NamedTuple):
    """The styles that an element hands down to its children, which may undo them."""

    shrunk: bool = False
    unseen: bool = False

    def within(self, styles: dict[str, str]) -> "_Style":
        """The inherited style of the children of an element with these styles of its own."""
        size, seen = styles.get("font-size", "inherit"), styles.get("visibility", "inherit")
        shrunk, unseen = self
        if not _RELATIVE.fullmatch(size) or _ZERO.fullmatch(size):
            shrunk = _ZERO.fullmatch(size) is not None
        if seen != "inherit":
            unseen = seen in ("hidden", "collapse")
        return _Style(shrunk, unseen)


def _visible(page: "Tag") -> Iterator["str | Tag | _End"]:
    """The visible page in order: words, tags at their start, and their ends.

    Goes by attributes alone: style sheets are not read.
    """
    from bs4.element import NavigableString, Tag

    # pages nest deeper than Python may call
    todo: list[tuple[PageElement | _End, _Style]] = [(page, _Style())]
    while todo:
        node, inherited = todo.pop()
        if isinstance(node, _End):
            yield node
        elif isinstance(node, Tag):
            plain = _COMMENT.sub("", str(node.get("style") or "")).lower()
            pairs = (style.partition(":") for style in plain.split(";"))
            styles = {name.strip(): value.partition("!")[0].strip() for name, _, value in pairs}
            if (
                node.name in _UNSEEN
                or node.has_attr("hidden")
                or str(node.get("aria-hidden")).strip().lower() == "true"
                or styles.get("display") == "none"
            ):
                continue
            yield node
            within = inherited.within(styles)
            todo.append((_End(node), inherited))
            todo += [(child, within) for child in reversed(node.contents)]
        # a comment is a subclass of a string
        elif type(node) is NavigableString and not any(inherited):
            yield str(node)
