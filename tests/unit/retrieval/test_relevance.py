import numpy as np
import pytest

from pipeline.profile import FLOOR, CollectionProfile, QdrantProfile
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.retrieval.relevance import SAMPLE, Rarity, Relevance, nearest, terms

EMBED = HashedEmbedder().embed
FACTS = [
    "The Viora logo is a white circle on teal.",
    "Nexo Labs shows a red star on black.",
    "Grünwald Optik has a black circle on pink as its sign.",
    "The crest of Osei & Daughters: a green circle on white.",
]


def relevance(keywords: str, text: str, rarity: Rarity) -> float:
    asked, own = EMBED([keywords, text])
    return Relevance(keywords, asked, rarity)(text, own)


@pytest.mark.parametrize(
    ("keywords", "about"),
    [
        ("Viora logo", 0),
        ("a poster icon for nexo labs", 1),
        ("GRUNWALD OPTIK'S emblem", 2),
        ("Osie & Daughters crest", 3),
        ("a large red star", None),
        ("Quarz Labs logo", None),
        ("a dog on the beach", None),
    ],
)
def test_only_what_a_text_is_about_reaches_the_floor(keywords: str, about: int | None) -> None:
    rarity = Rarity(FACTS)
    above = [at for at, fact in enumerate(FACTS) if relevance(keywords, fact, rarity) >= FLOOR]
    assert above == ([] if about is None else [about])


def test_the_name_that_every_text_has_drops_none_of_them() -> None:
    pages = [f"Contoso brand handbook: page {number}." for number in range(300)]
    pages += ["Contoso brand handbook: envelopes.", "Contoso brand handbook: vehicles."]
    rarity = Rarity(pages)
    assert all(relevance("Contoso brand handbook", page, rarity) == 1 for page in pages)
    # one text of two is not most of a collection
    assert relevance("a red star", FACTS[0], Rarity(FACTS[:2])) < FLOOR
    assert relevance("Contoso vehicles", pages[-1], rarity) > FLOOR
    assert relevance("Contoso vehicles", pages[-2], rarity) < FLOOR


def test_one_letter_of_a_script_without_spaces_is_a_word() -> None:
    cat, hill = "黒い猫がソファで眠っている。", "山は高い。"
    rarity = Rarity([cat, hill])
    assert relevance("猫", cat, rarity) > FLOOR > relevance("猫", hill, rarity)


def test_it_is_one_for_the_same_rare_words_and_zero_for_other_ones() -> None:
    rarity = Rarity(FACTS)
    assert relevance("Zorvane", "Zorvane", rarity) == pytest.approx(1)
    other = np.zeros(512, dtype=np.float32)
    assert Relevance("Zorvane", other, rarity)("A white circle.", other) == 0
    assert Relevance("", other, rarity)("A white circle.", other) == 0


def test_words_of_many_texts_weigh_little() -> None:
    many = Rarity([f"Brand{number} has a circle." for number in range(SAMPLE)])
    assert many("circle") < 0.01 < 0.8 < many("brand7") < many("zorvane") == 1


def test_in_a_small_collection_general_language_tells_what_is_rare() -> None:
    alone = Rarity(["The Viora logo is white."])
    assert alone("the") < alone("white") < alone("viora") < alone("zorvane") == 1
    assert alone("viora") > 0.8


def test_a_word_that_is_spelled_otherwise() -> None:
    word, likeness = nearest("otetr", ["tall", "otter", "ottoman"])
    assert word == "otter"
    assert 0.75 <= likeness < 1
    assert nearest("otter", ["tall", "otter"]) == ("otter", 1.0)
    assert nearest("cat", ["car", "cats"]) == ("cat", 0.0)


def test_scripts_without_spaces_are_compared_by_pairs() -> None:
    assert terms("緑茶の箱 box") == ["緑茶", "茶の", "の箱", "box"]
    rarity = Rarity(["緑茶の箱は白い。", "赤い星の看板。"])
    assert relevance("緑茶の缶", "緑茶の箱は白い。", rarity) > FLOOR
    assert relevance("緑茶の缶", "赤い星の看板。", rarity) < FLOOR


def test_only_words_have_a_floor_by_default() -> None:
    theirs = {"theirs": CollectionProfile(written_by="langchain")}
    hashed = QdrantProfile(collections=theirs)
    assert (hashed.floor_of("brands"), hashed.floor_of("theirs")) == (FLOOR, 0)
    assert QdrantProfile(embedding="some/encoder").floor_of("brands") == 0
    chosen = QdrantProfile(embedding="some/encoder", collections=theirs, floor=0.3)
    assert chosen.floor_of("brands") == chosen.floor_of("theirs") == 0.3
    assert QdrantProfile(floor=0).floor_of("brands") == 0
