"""The syntax of weights in prompts."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.emphasis import MOST_WEIGHT
from pipeline.errors import JobError
from pipeline.rendering.prompts import Prompt, as_it_stands, read_weights

UP, DOWN = 1.1, 1 / 1.1


def read(text: str) -> list[list[tuple[str, float]]]:
    return [[(words, round(w, 9)) for words, w in each] for each in read_weights(text).sections]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a red circle", [("a red circle", 1)]),
        ("", []),
        ("a (red) circle", [("a ", 1), ("red", UP), (" circle", 1)]),
        ("a [red] circle", [("a ", 1), ("red", DOWN), (" circle", 1)]),
        ("a (red:1.3) circle", [("a ", 1), ("red", 1.3), (" circle", 1)]),
        ("(red : .5 )", [("red ", 0.5)]),
        ("(red:-1)(blue:0)", [("red", -1), ("blue", 0)]),
        ("((red) circle)", [("red", UP * UP), (" circle", UP)]),
        ("((red:1.5) circle:2)", [("red", 3), (" circle", 2)]),
        ("([red])", [("red", 1)]),
        ("[[red] circle]", [("red", DOWN * DOWN), (" circle", DOWN)]),
        (r"a \(red\) circle \[b\] \\", [("a (red) circle [b] \\", 1)]),
        (r"(a \(b\):1.5)", [("a (b)", 1.5)]),
        # what closes nothing, and what is never closed
        ("smile :) and ]", [("smile :) and ]", 1)]),
        ("16:9) format", [("16:9) format", 1)]),
        ("a (red circle", [("a ", 1), ("red circle", UP)]),
        ("a [red (circle", [("a ", 1), ("red ", DOWN), ("circle", UP * DOWN)]),
        ("(a:1.2", [("a:1.2", UP)]),
        ("[a:1.2]", [("a:1.2", DOWN)]),
        ("(a [b) c]", [("a ", UP), ("b", 1), (" c", DOWN)]),
        # no numbers
        ("(a:1.2.3)", [("a:1.2.3", UP)]),
        ("(a:b)", [("a:b", UP)]),
        ("(a:)", [("a:", UP)]),
        ("(time: 2:3)", [("time: 2", 3)]),
        (r"c:\new", [(r"c:\new", 1)]),
    ],
)
def test_brackets_weigh_the_words_in_them(text: str, parts: list[tuple[str, float]]) -> None:
    assert read(text) == [[(words, round(weight, 9)) for words, weight in parts]]


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("a BREAK b", [[("a", 1)], [("b", 1)]]),
        ("a\nBREAK\nb", [[("a", 1)], [("b", 1)]]),
        ("(a BREAK b:1.2) c", [[("a", 1.2)], [("b", 1.2), (" c", 1)]]),
        ("BREAK a BREAK", [[], [("a", 1)], []]),
        ("a BREAKER, breaks", [[("a BREAKER, breaks", 1)]]),
    ],
)
def test_break_begins_a_section(text: str, sections: list[list[tuple[str, float]]]) -> None:
    assert read(text) == sections


@pytest.mark.parametrize(
    "text",
    ["(a:11)", "(a:-10.5)", "((a:4):4)", "(" * 40 + "a", "(" * 999 + "(a:999)" + ":999)" * 999],
)
def test_a_weight_beyond_the_limit_fails_its_row(text: str) -> None:
    with pytest.raises(JobError, match=f"a weight of words is beyond {MOST_WEIGHT:g}"):
        read_weights(text)


@given(st.text(alphabet="ab ,:.()[]\\12-BREAK", max_size=60) | st.text(max_size=60))
def test_any_text_is_read_without_losing_a_word(text: str) -> None:
    try:
        prompt = read_weights(text)
    except JobError:
        return
    kept = "".join(words for section in prompt.sections for words, _ in section)
    letters = [sign for sign in text.replace("BREAK", "") if sign in "ab,"]
    assert [sign for sign in kept if sign in "ab,"] == letters
    assert all(math.isfinite(weight) for section in prompt.sections for _, weight in section)
    # neighbours differ, and none is empty
    for section in prompt.sections:
        assert all(words for words, _ in section)
        assert all(one[1] != other[1] for one, other in pairwise(section))


@given(st.text(max_size=60))
def test_an_escaped_text_is_read_as_it_stands(text: str) -> None:
    escaped = "".join(f"\\{sign}" if sign in "()[]\\" else sign for sign in text)
    prompt = read_weights(escaped)
    if "BREAK" not in text:
        assert (prompt.plain, prompt.weighted) == (text, False)
    assert as_it_stands([text])[0].plain == text


def test_a_prompt_says_whether_it_is_more_than_words() -> None:
    said = {
        text: read_weights(text).weighted for text in ("a", r"\(a\)", "(a)", "a BREAK b", "(a:1)")
    }
    assert list(said.values()) == [False, False, True, True, False]
    assert Prompt(read_weights("(a) [b] BREAK c").sections).plain == "a b c"
