"""A long text is cut where it hurts least."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.judging.clip import pieces

words = st.text("ab.,!; \n\t", max_size=80)


@given(words, st.integers(1, 30))
def test_pieces_fit_and_lose_no_word(text: str, length: int) -> None:
    cut = pieces(text, lambda piece: len(piece) <= length)
    assert all(len(piece) <= length for piece in cut)
    assert "".join("".join(cut).split()) == "".join(text.split())


def test_a_text_that_fits_is_left_alone() -> None:
    assert pieces("  One. Two. ", lambda _: True) == ["One. Two."]
    assert pieces("", lambda _: True) == [""]


def test_sentences_come_before_clauses_and_clauses_before_words() -> None:
    text = "A red circle. A blue star, small, on the left. Green!"
    cut = pieces(text, lambda piece: len(piece) <= 20)
    assert cut == ["A red circle.", "A blue star, small,", "on the left.", "Green!"]


def test_neighbours_are_joined_while_they_fit() -> None:
    assert pieces("One. Two. Three.", lambda piece: len(piece) <= 9) == ["One. Two.", "Three."]


def test_a_character_that_never_fits_is_kept() -> None:
    assert pieces("ab", lambda _: False) == ["a", "b"]
