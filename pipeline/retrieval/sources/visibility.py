"""What a reader sees of a page, as far as its elements themselves say; style sheets are unknown."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bs4.element import PageElement, Tag

_UNSEEN = {"audio", "canvas", "datalist", "embed", "head", "iframe", "noembed", "noframes"}
_UNSEEN |= {"noscript", "object", "script", "style", "svg", "template", "title", "video"}
_NOTHING = re.compile(r"[+-]?(0+(\.0*)?|\.0+)[a-z%]*")
_RELATIVE = re.compile(r"inherit|larger|smaller|.*(?<!r)em|.*(%|ex|ch)")
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)


class End(NamedTuple):
    """Where an element ends."""

    tag: "Tag"


class _Look(NamedTuple):
    """What an element hands down to those within, which may undo it."""

    shrunk: bool = False
    unseen: bool = False

    def within(self, styles: dict[str, str]) -> "_Look":
        """The look of an element that has these styles of its own."""
        size, seen = styles.get("font-size", "inherit"), styles.get("visibility", "inherit")
        shrunk, unseen = self
        if not _RELATIVE.fullmatch(size) or _NOTHING.fullmatch(size):
            shrunk = _NOTHING.fullmatch(size) is not None
        if seen != "inherit":
            unseen = seen in ("hidden", "collapse")
        return _Look(shrunk, unseen)


def visible(page: "Tag") -> Iterator["str | Tag | End"]:
    """What is seen, in order: words, tags where they begin, and where they end."""
    from bs4.element import NavigableString, Tag

    # pages nest deeper than Python may call
    todo: list[tuple[PageElement | End, _Look]] = [(page, _Look())]
    while todo:
        node, look = todo.pop()
        if isinstance(node, End):
            yield node
        elif isinstance(node, Tag):
            styles = _styles(node)
            if not _is_left_out(node, styles):
                yield node
                within = look.within(styles)
                todo.append((End(node), look))
                todo += [(child, within) for child in reversed(node.contents)]
        elif type(node) is NavigableString and not any(look):  # a comment is one of its kinds
            yield str(node)


def _is_left_out(tag: "Tag", styles: dict[str, str]) -> bool:
    return (
        tag.name in _UNSEEN
        or tag.has_attr("hidden")
        or str(tag.get("aria-hidden")).strip().lower() == "true"
        or styles.get("display") == "none"
    )


def _styles(tag: "Tag") -> dict[str, str]:
    """The styles that stand in the tag itself, names and values in lower case."""
    plain = _COMMENT.sub("", str(tag.get("style") or "")).lower()
    pairs = (style.partition(":") for style in plain.split(";"))
    return {name.strip(): value.partition("!")[0].strip() for name, _, value in pairs}
