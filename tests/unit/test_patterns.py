"""Every regular expression takes time that grows with its input, not with the input's square."""

import ast
import importlib
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import pytest

sre: Any = importlib.import_module("re._constants")
sre_parser: Any = importlib.import_module("re._parser")

ROOT = Path(__file__).parents[2]
USES = ("fullmatch", "match", "search", "sub", "subn", "split", "findall", "finditer")
SMALL, LARGE = 1_000, 8_000
"""Letters of the inputs that are compared: one large input may take GROWTH times as long as
small ones of as many letters together.
"""
GROWTH = 3
FLOOR = 0.04
"""Seconds of the processor that the large input may take in any case."""
MOST = 1.0
INPUTS = 120

CATEGORIES = {
    sre.CATEGORY_DIGIT: "0",
    sre.CATEGORY_NOT_DIGIT: "a",
    sre.CATEGORY_SPACE: " ",
    sre.CATEGORY_NOT_SPACE: "a",
    sre.CATEGORY_WORD: "a",
    sre.CATEGORY_NOT_WORD: " ",
}


@dataclass(frozen=True)
class Found:
    """A pattern of ours and the ways in which it is used."""

    where: str
    pattern: re.Pattern[Any]
    uses: frozenset[str]


def found_patterns() -> Iterator[Found]:
    """Each call of `re` in the three packages, with its pattern as it is at run time."""
    trees = {
        path: ast.parse(path.read_text())
        for package in ("pipeline", "workers", "flows")
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    everywhere = [use for tree in trees.values() for use in uses_of(tree)]
    for path, tree in trees.items():
        names = {
            id(node.value): target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name)
        }
        for call in calls_of_re(tree):
            if "re.escape" in ast.unparse(call):
                continue  # words as they stand
            pattern = re.compile(*evaluated(path, call))
            uses = {call.func.attr} & set(USES)  # type: ignore[attr-defined]
            if not uses:
                name = names.get(id(call), "")
                here = {use for known, use in uses_of(tree) if known == name}
                uses = here or {use for known, use in everywhere if known == name} or {"sub"}
            yield Found(f"{path.relative_to(ROOT)}:{call.lineno}", pattern, frozenset(uses))


def calls_of_re(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            base = node.func.value
            named = isinstance(base, ast.Name) and base.id == "re"
            if named and node.func.attr in {"compile", *USES}:
                yield node


def uses_of(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names and the methods of patterns that are called on them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in USES:
            base = node.value
            if isinstance(base, ast.Name | ast.Attribute):
                yield base.id if isinstance(base, ast.Name) else base.attr, node.attr


def evaluated(path: Path, call: ast.Call) -> tuple[Any, Any]:
    """Pattern and flags of a call, by what its module knows."""
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))

    def value(node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), str(path), "eval"), vars(module))

    compiled = call.func.attr == "compile"  # type: ignore[attr-defined]
    return value(call.args[0]), value(call.args[1]) if compiled and call.args[1:] else 0


def letters_of(parsed: Any, chance: random.Random) -> list[str]:
    """Letters and runs of letters that some part of the pattern takes."""
    found, run = list[str](), ""
    for kind, value in parsed:
        if kind is sre.LITERAL:
            run += chr(value)
            found.append(chr(value))
            continue
        found, run = [*found, run], ""
        found += within(kind, value, chance)
    return [each for each in dict.fromkeys([*found, run]) if each]


def within(kind: Any, value: Any, chance: random.Random) -> list[str]:
    if kind is sre.IN:
        return members(value, chance)
    if kind is sre.NOT_LITERAL:
        return ["a" if value != ord("a") else "b"]
    if kind is sre.ANY:
        return ["x"]
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        return letters_of(value[2], chance)
    if kind is sre.SUBPATTERN:
        return letters_of(value[-1], chance)
    if kind in (sre.ASSERT, sre.ASSERT_NOT):
        return letters_of(value[1], chance)
    if kind is sre.ATOMIC_GROUP:
        return letters_of(value, chance)
    if kind is sre.BRANCH:
        return [each for branch in value[1] for each in letters_of(branch, chance)]
    assert kind in (sre.AT, sre.GROUPREF), f"the test does not know {kind}"
    return []


def members(parts: Any, chance: random.Random) -> list[str]:
    """A few letters of a class, one for each of its parts."""
    found = list[str]()
    for kind, value in parts:
        if kind is sre.NEGATE:
            found += ["a", " ", "0"]
        elif kind is sre.LITERAL:
            found.append(chr(value))
        elif kind is sre.RANGE:
            found.append(chr(value[0]))
        else:
            found.append(CATEGORIES[value])
    return found if len(found) <= 6 else chance.sample(found, 6)


def matching(parsed: Any, chance: random.Random) -> str:
    """A short text such as the pattern takes, or nearly."""
    said = ""
    for kind, value in parsed:
        if kind is sre.LITERAL:
            said += chr(value)
        elif kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            said += "".join(matching(value[2], chance) for _ in range(max(1, min(value[0], 8))))
        elif kind is sre.SUBPATTERN:
            said += matching(value[-1], chance)
        elif kind is sre.ATOMIC_GROUP:
            said += matching(value, chance)
        elif kind is sre.BRANCH:
            said += matching(chance.choice(value[1]), chance)
        elif letters := within(kind, value, chance):
            said += chance.choice(letters)
    return said


def inputs(pattern: re.Pattern[Any]) -> Iterator[Callable[[int], str]]:
    """Texts of any length, made of what the pattern looks for and an end that it does not take."""
    chance = random.Random(len(pattern.pattern))
    parsed = sre_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
    letters = letters_of(parsed, chance)
    wholes = [matching(parsed, chance) for _ in range(4)]
    pairs = [a + b for a in letters for b in letters if a != b]
    starts = ["", *(whole[: len(whole) // 2] for whole in wholes), *wholes, *letters]
    ends = ["\x00", "\nx", " /", "x", "", *letters]
    shapes = [(start, letter, "\x00") for letter in letters for start in ("", "\x00")]
    shapes += [("", unit, end) for unit in pairs + wholes for end in ("\x00", "")]
    shapes += [(start, letter, "\x00") for letter in letters for start in starts[1:]]
    if len(shapes) > INPUTS:
        shapes = shapes[: INPUTS // 3] + chance.sample(shapes, INPUTS * 2 // 3)
    while len(shapes) < INPUTS:
        unit = chance.choice([*letters, *pairs, *wholes])
        shapes.append((chance.choice(starts), unit, chance.choice(ends)))
    for start, unit, end in shapes:
        yield partial(stretched, start, unit, end)


def stretched(start: str, unit: str, end: str, size: int) -> str:
    """About `size` letters."""
    return start + unit * (size // len(unit)) + end


class TooSlow(Exception):
    """A pattern takes more than MOST seconds."""


def cost(pattern: re.Pattern[Any], use: str, *texts: str) -> float:
    """Seconds of the processor that the uses take; at most MOST."""
    start = time.process_time()
    for text in texts:
        put = text.encode() if isinstance(pattern.pattern, bytes) else text
        arguments = (put[:0], put) if use in ("sub", "subn") else (put,)
        found = getattr(pattern, use)(*arguments)
        if use == "finditer":
            list(found)
    return max(time.process_time() - start, 0.01)  # the clock's step on some machines


def grows(pattern: re.Pattern[Any], uses: frozenset[str]) -> str:
    """An input that shows more than linear time; empty where there is none."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, late)
    try:
        for text in inputs(pattern):
            for use in sorted(uses):
                signal.setitimer(signal.ITIMER_VIRTUAL, MOST)
                try:
                    if cost(pattern, use, text(LARGE)) > FLOOR:
                        small = [text(SMALL)] * (LARGE // SMALL)
                        growth = median(
                            cost(pattern, use, text(LARGE)) / cost(pattern, use, *small)
                            for _ in range(3)
                        )
                        if growth > GROWTH:
                            return f"{use} of {text(40)!r}: {growth:.0f} times as long"
                except TooSlow:
                    return f"{use} of {text(40)!r}: more than {MOST} s"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return ""


FOUND = list(found_patterns())


def test_the_patterns_are_found() -> None:
    assert {"pipeline/jobfile/values.py", "pipeline/masking.py"} <= {
        each.where.partition(":")[0] for each in FOUND
    }


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.where)
def test_a_pattern_takes_linear_time(found: Found) -> None:
    assert not grows(found.pattern, found.uses)


@pytest.mark.parametrize(
    ("pattern", "use"),
    [
        (r"[+-]?\d[\d.,'’\s]*[,'’\s][\d.,'’\s]*\d", "fullmatch"),
        (r"[+-]?(0+\.?0*|\.0+)[a-z%]*", "fullmatch"),
        (r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", "fullmatch"),
        (r"^[\s,;.]+|[\s,;.]+$", "sub"),
        (r"(a+)+b", "search"),
        (r"<!--.*?-->", "sub"),
        (r"\s*x\s*y", "search"),
    ],
)
def test_slow_patterns_are_seen(pattern: str, use: str) -> None:
    assert grows(re.compile(pattern), frozenset([use]))
