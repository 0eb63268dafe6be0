"""Makes a page safe to parse."""

import re

_TOKEN = re.compile(
    r"""
      <!--.*?(?:-->|\Z)                                           # a comment
    | <[!?][^>]*(?:>|\Z)                                          # a declaration
    | <(?P<raw>script|style)(?=[\s/>]).*?(?:</(?P=raw)[^>]*(?:>|\Z)|\Z)
    | (?P<tag></?[a-z](?>=\s*(?:"[^"]*(?:"|\Z)|'[^']*(?:'|\Z))|[^>])*+(?:>|\Z))
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


def tidied(markup: str) -> str:
    """The page without comments, declarations, scripts, styles and tags that never end.

    Python's parser reads to the end of the page for each that is not closed, so that a page made
    for it takes days. Each part of the pattern therefore takes all that it has looked at.
    """
    return _TOKEN.sub(lambda found: _kept(found["tag"] or ""), markup)


def _kept(tag: str) -> str:
    return tag if tag.endswith(">") else ""
