"""Invented knowledge bases: the same again for a seed, and every brand's fact told once."""

import numpy as np
import pytest

from benchmarks.retrieval.brands import FORMS, SHORTEST, Book, book, copies, misspelled
from examples.shapes.training.writer.names import known_brands
from examples.shapes.training.writer.passages import plain_taste


@pytest.fixture(scope="module")
def crowded() -> Book:
    return book(np.random.default_rng(5), 40, plain_taste(), crowded=True)


def test_a_seed_decides_the_book(crowded: Book) -> None:
    assert book(np.random.default_rng(5), 40, plain_taste(), crowded=True) == crowded
    assert book(np.random.default_rng(6), 40, plain_taste(), crowded=True) != crowded


def test_each_brand_has_one_fact_that_names_it_among_passages_of_other_sources(
    crowded: Book,
) -> None:
    sources = [row["source"] for row in crowded.rows]
    assert len(set(sources)) == len(sources)
    by_source = {row["source"]: row for row in crowded.rows}
    for brand in crowded.brands:
        assert brand.name.lower() in by_source[brand.source]["text"].lower()
        assert brand.name.lower() not in known_brands()
    kinds = {source.partition("/")[0] for source in sources}
    assert kinds == {"brandbook", "press", "house", "near", "fair"}


def test_a_misspelled_name_is_another_and_nearly_the_same() -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        wrong = misspelled("Korvax Works 7", rng)
        assert abs(len(wrong) - len("Korvax Works 7")) <= 1
        assert (
            sum(a == b for a, b in zip(wrong.split(), ["Korvax", "Works", "7"], strict=True)) == 2
        )
    assert misspelled("A" * (SHORTEST - 1), rng) == "A" * (SHORTEST - 1)


def test_every_form_asks_for_the_brand() -> None:
    rng = np.random.default_rng(7)
    for name, form in FORMS.items():
        asked = form("Korvax", rng)
        assert ("korvax" in asked.lower()) is (name != "misspelled")


def test_copies_are_other_sources_with_other_texts() -> None:
    row = {"text": "KORVAX: a red star.", "source": "brandbook/1.md"}
    made = [row, *copies(row, np.random.default_rng(7))]
    for field in ("text", "source"):
        assert len({each[field] for each in made}) == 3
