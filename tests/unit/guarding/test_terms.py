import pytest

from pipeline.errors import Blocked, ConfigError
from pipeline.writing.guard import TermGuard


@pytest.mark.parametrize(
    "text",
    [
        "gore",
        "an image of GORE, please",
        "g0re",
        "göre",
        "ｇｏｒｅ",
        "go\u200bre",
        "no-gore!",
        "gore.",
        "_gore_",
    ],
)
def test_a_term_is_found_however_it_is_written(text: str) -> None:
    with pytest.raises(Blocked, match="'gore'"):
        TermGuard(["gore"]).check_text(text)


@pytest.mark.parametrize("text", ["", "Gorey by the sea", "forego re", "a gorge", "category"])
def test_part_of_a_word_is_no_word(text: str) -> None:
    TermGuard(["gore"]).check_text(text)


def test_a_term_of_several_words() -> None:
    guard = TermGuard(["Café Noir"])
    with pytest.raises(Blocked, match="'Café Noir'"):
        guard.check_text("c4fe  -  NOIR poster")
    guard.check_text("a noir cafe")


def test_a_term_with_digits_is_found_as_it_is_written() -> None:
    with pytest.raises(Blocked, match="'Area 51'"):
        TermGuard(["Area 51"]).check_text("inside area 51, at night")


def test_terms_are_found_in_scripts_without_spaces() -> None:
    with pytest.raises(Blocked, match="血"):
        TermGuard(["血"]).check_text("流血的圆圈")


@pytest.mark.parametrize("term", ["", "  ", "!?"])
def test_a_term_that_could_never_be_found_is_refused(term: str) -> None:
    with pytest.raises(ConfigError):
        TermGuard(["gore", term])
