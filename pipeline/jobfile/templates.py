r"""Templates in a row's text: `${meta.NAME}` is substituted, `{red|blue}` is a choice.

A backslash escapes one of `\ { } | $`, or a whole `${…}`. Substituted text is not expanded again.
Every problem is a ValueError with the reason as its message.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping

DEEPEST = 8
"""Levels of nested choices."""

LONGEST = 2048
"""Characters of a `meta` value that may be substituted."""

_TOKEN = re.compile(r"\\\$\{[^{}]*\}|\\[\\{}|$]|\$\{[^{}]*\}?|[{}|]|[^\\{}|$]+|.", re.DOTALL)
_SPECIAL = frozenset("\\{}$")
_UNSUPPORTED = (
    ("::", re.compile(r"\{\s*[\d.]+::"), "weights as in {2::red|1::blue} are"),
    ("$$", re.compile(r"\{\s*\d+(-\d+)?\$\$"), "counts as in {2$$red|blue|green} are"),
    ("__", re.compile(r"__[A-Za-z0-9/*-][A-Za-z0-9_/*-]*__"), "wildcards as in __color__ are"),
    ("--", re.compile(r"(?:^|\s)--[a-z]+\s"), "flags as in --ar 16:9 are"),
)


def unsupported_syntax(template: str) -> Iterator[str]:
    """Remarks on template syntax of other tools, which is taken as plain words here."""
    for sign, pattern, kind in _UNSUPPORTED:
        if sign in template and pattern.search(template):
            yield f"{kind} not known here and taken as plain words"


def expand(template: str, meta: Mapping[str, str], key: str) -> str:
    """The expanded template; `key` decides every choice, so that equal keys choose alike.

    Every option of a choice must be valid, whichever is taken.
    """
    if _SPECIAL.isdisjoint(template):
        return template
    return _Expansion(template, meta, key).whole()


class _Expansion:
    """One pass over a template's tokens, choosing as it goes."""

    def __init__(self, template: str, meta: Mapping[str, str], key: str) -> None:
        self._tokens = _TOKEN.findall(template)
        self._next = 0
        self._meta, self._key = meta, key
        self._choices = 0

    def whole(self) -> str:
        options = self._options(depth=0)
        return "|".join(options)

    def _options(self, depth: int) -> list[str]:
        """The alternatives up to the closing brace, or up to the end outside of all braces."""
        options = [""]
        while self._next < len(self._tokens):
            token = self._tokens[self._next]
            self._next += 1
            if token == "}" and depth:
                return options
            if token == "}":
                raise ValueError("a '}' closes nothing; write \\} for the character itself")
            if token == "|":
                options.append("")
            elif token == "{":
                options[-1] += self._choose(depth)
            elif token.startswith("${"):
                options[-1] += self._substitute(token)
            else:
                escaped = len(token) > 1 and token[0] == "\\"
                options[-1] += token[1:] if escaped else token
        if depth:
            raise ValueError("a '{' is never closed; write \\{ for the character itself")
        return options

    def _substitute(self, token: str) -> str:
        name = token[2:].removesuffix("}").strip()
        if not token.endswith("}") or not name.startswith("meta."):
            raise ValueError(f"'{token[:40]}' is not of the form ${{meta.NAME}}")
        value = self._meta.get(name.removeprefix("meta."))
        if value is None:
            raise ValueError(f"this row has no {name[:60]}")
        if len(value) > LONGEST:
            raise ValueError(f"{name[:60]} is too long to be put in: more than {LONGEST} letters")
        return value

    def _choose(self, depth: int) -> str:
        if depth == DEEPEST:
            raise ValueError(f"choices are nested deeper than {DEEPEST}")
        self._choices += 1
        drawn = hashlib.sha256(f"{self._key}/{self._choices}".encode()).digest()
        options = self._options(depth + 1)
        return options[int.from_bytes(drawn[:8], "big") % len(options)]
