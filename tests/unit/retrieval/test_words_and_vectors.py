import os
import subprocess
import sys

import numpy as np
import pytest

from pipeline.retrieval.lexical import (
    K1,
    HashedEmbedder,
    document_vector,
    evenly,
    query_vector,
    rarity,
    words,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Viora logo", ["viora", "logo"]),
        ("Café ÉLAN", ["cafe", "elan"]),
        ("Cafe\u0301", ["cafe"]),
        ("Ｖｉｏｒａ", ["viora"]),
        ("Fjordbrygg's, Otto’s", ["fjordbrygg", "otto"]),
        ("O'Dowd's", ["odowd"]),
        ("Lumen-Ayre & 1820", ["lumen", "ayre", "1820"]),
        ("Straße", ["strasse"]),
        ("赤い 円", ["赤い", "円"]),
        ("the of & !", []),
        ("", []),
    ],
)
def test_a_text_is_split_into_words(text: str, wanted: list[str]) -> None:
    assert words(text) == wanted


def weight(vector, word: str) -> float:
    (index,) = query_vector(word).indices
    return dict(zip(vector.indices, vector.values, strict=True)).get(index, 0.0)


def test_bm25_weights() -> None:
    once, often = document_vector("viora logo"), document_vector("viora viora viora logo")
    long = document_vector("viora " + "other words " * 60)
    assert weight(once, "Viora's") < weight(often, "viora") < K1 + 1
    assert weight(long, "viora") < weight(once, "viora")
    assert weight(once, "teal") == 0
    # the formula by hand: one of two words, 40 being typical
    assert weight(once, "viora") == pytest.approx(2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / 40)))


def test_a_query_counts_each_word_once() -> None:
    vector = query_vector("logo of the logo")
    assert vector.values == [1.0]


def test_hashed_vectors_have_length_one() -> None:
    vectors = HashedEmbedder().embed(["Viora logo", "a", "!"])
    assert vectors.shape == (3, HashedEmbedder.size)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 0])
    assert HashedEmbedder().embed([]).shape == (0, HashedEmbedder.size)


def test_hashed_vectors_know_spellings() -> None:
    query, near, far = HashedEmbedder().embed(["Nexo Labs", "nexolabs", "Harlow & Finch"])
    assert query @ near > 0.4 > 0.2 > abs(query @ far)


def test_a_name_says_more_than_what_all_texts_have() -> None:
    assert rarity("viorax") == 1
    weights = [rarity(word) for word in ("emblem", "logo", "company", "and")]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] < 0.5
    assert weights[-1] < 0.02
    query, named, same_word = HashedEmbedder().embed(["Viorax logo", "Viorax", "Nexo logo"])
    assert query @ named > 0.9 > 0.2 > query @ same_word
    query, named, same_word = HashedEmbedder(evenly).embed(["Viorax logo", "Viorax", "Nexo logo"])
    assert query @ named == pytest.approx(query @ same_word, abs=0.25)


def test_vectors_are_alike_in_every_process() -> None:
    program = (
        "from pipeline.retrieval.lexical import HashedEmbedder\n"
        "print(HashedEmbedder().embed(['Viora logo']).tobytes().hex())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    there = subprocess.check_output([sys.executable, "-c", program], env=env, text=True)
    assert there.strip() == HashedEmbedder().embed(["Viora logo"]).tobytes().hex()
    # stored collections hold these numbers
    assert query_vector("Viora logo").indices == [2460589148, 3834550803]
