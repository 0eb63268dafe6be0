import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.writing.lines import one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\r\nc\td", "a b c d"),
        ("a\u2028b\u2029c\x0bd\x85e", "a b c d e"),
        ("in\u00adv\u200bisi\u202eble\x00", "invisible"),
        ("👩\u200d🎨 می\u200cخواهم", "👩\u200d🎨 می\u200cخواهم"),
        ("  spaces \u00a0 collapse ", "spaces collapse"),
    ],
)
def test_stands_on_one_line(text: str, line: str) -> None:
    assert one_line(text, 100) == line


def test_is_cut_after_a_whole_word() -> None:
    assert one_line("one two three", 9) == "one two"
    assert one_line("one two three", 7) == "one two"
    assert one_line("unbreakable", 4) == "unbr"


@given(st.text(), st.integers(1, 30))
def test_is_never_longer_than_the_limit_nor_broken(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert line == one_line(line, limit)
