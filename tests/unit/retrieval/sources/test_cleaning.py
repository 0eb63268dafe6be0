import pytest

from pipeline.retrieval.sources.cleaning import MARKS, cleaned, one_line, well_formed


def test_what_is_taken_out_of_texts() -> None:
    text = "See  https://evil.example/x?y=1 \u202enow\u0000.\n\nCafe\u0301 www.a.b"
    assert cleaned(text) == "See now.\n\nCafé"


def test_a_label_is_one_line_without_addresses() -> None:
    assert one_line("a\n https://x.y \u202eb") == "a b"
    assert one_line("a\nhttps://x.y", addresses=True) == "a https://x.y"


@pytest.mark.timeout(60)
def test_a_letter_with_a_million_accents() -> None:
    assert len(cleaned("a" + "\u0301\u0323" * 500_000 + "b")) <= MARKS + 2


def test_lone_surrogates_are_replaced() -> None:
    assert well_formed("\ud83d\ude00 \ud83d é") == "\U0001f600 \ufffd é"
