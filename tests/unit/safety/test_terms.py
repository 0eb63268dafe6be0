import pytest

from pipeline.errors import ConfigError
from pipeline.safety.terms import Terms


@pytest.mark.parametrize(
    "text",
    [
        "gore",
        "an image of GORE, please",
        "g0re",
        "göre",
        "ｇｏｒｅ",
        "𝐠𝐨𝐫𝐞",
        "go\u200bre",
        "g\u00ado\u2060re",
        "g\u3164ore",
        "go\ufe00re",
        "no-gore!",
        "gore.",
        "_gore_",
        "gore1",
        "2gore",
        "gore²",
        "血腥gore画面",
        "血腥g0re画面",
        "g0re!",
        "gøre",
        "ɢᴏʀᴇ",
        "🅶🅾🆁🅴",
        "🅖🅞🅡🅔",
        "goـre",
        "go\u0951re",
        "g\u0488ore",
        "go\u02bcre",
    ],
)
def test_a_term_is_found_however_it_is_written(text: str) -> None:
    assert Terms(["gore"]).found(text) == "gore"


@pytest.mark.parametrize(
    "text",
    [
        "b l o o d",
        "a b l o o d y-free b l o o d",
        "bl-ood",
        "b.l.o.o.d",
        "bl ood",
        "b*l*o*o*d",
        "blo\nod",
        "b1ood",
        "bl00d",
        "8lood",
        "8l00d",
        "błood",
        "ВLООD",  # Cyrillic Ve and O
        "blооd",  # Cyrillic o
        "blοod",  # Greek omicron
        "ｂl\u200b0 ο d",
    ],
)
def test_a_term_is_found_in_pieces_and_in_look_alikes(text: str) -> None:
    assert Terms(["gore", "blood"]).found(text) == "blood"


def test_look_alikes_of_capitals_and_of_small_letters() -> None:
    assert Terms(["hate"]).found("ΗΑΤΕ") == "hate"  # Greek Eta looks like H, small eta like n
    assert Terms(["водка"]).found("ВОДКА") == "водка"
    assert Terms(["ΗΑΤΕ"]).found("hate") == "ΗΑΤΕ"


@pytest.mark.parametrize(
    "text",
    ["", "Gorey by the sea", "forego red", "a gorge", "category", "ego, real", "go, reader"],
)
def test_part_of_a_word_is_no_word(text: str) -> None:
    assert Terms(["gore"]).found(text) == ""


def test_a_term_of_several_words() -> None:
    terms = Terms(["Café Noir"])
    assert terms.found("c4fe  -  NOIR poster") == "Café Noir"
    assert terms.found("cafenoir") == "Café Noir"
    assert terms.found("a noir cafe") == ""


def test_an_exclamation_mark_within_a_word_is_an_i() -> None:
    assert Terms(["kill"]).found("to k!ll") == "kill"
    assert Terms(["hi there"]).found("h! there") == ""
    assert Terms(["stopi"]).found("stop! it") == ""


def test_a_mark_of_a_script_stays_on_its_own_letters() -> None:
    assert Terms(["कताब"]).found("एक किताब") == ""
    assert Terms(["كلمة"]).found("كلـمة") == "كلمة"


def test_a_long_text_is_read_in_linear_time() -> None:
    class Slices(list[str]):
        def __getitem__(self, key: object) -> object:  # type: ignore[override]
            assert not isinstance(key, slice), "a copy for each word"
            return super().__getitem__(key)  # type: ignore[index]

    runs = list(Terms(["gore"])._runs(Slices(["go", "re", "x"])))
    assert runs == ["go", "gore", "re", "rex", "x"]


def test_digits_of_a_term_are_no_letters() -> None:
    terms = Terms(["Area 51", "C4"])
    assert terms.found("inside area 51, at night") == "Area 51"
    assert terms.found("a block of C4") == "C4"
    assert terms.found("Los Angeles, CA") == ""
    assert Terms(["si"]).found("51 boats") == ""


def test_terms_are_found_in_scripts_without_spaces() -> None:
    assert Terms(["血"]).found("流血的圆圈") == "血"
    assert Terms(["피"]).found("빨간 피로") == "피"
    assert Terms(["피"]).found("핑크") == ""  # another syllable that begins with the same sounds


def test_vowel_signs_are_letters() -> None:
    assert Terms(["किताब"]).found("एक किताब") == "किताब"
    assert Terms(["किताब"]).found("एक कताब") == ""


@pytest.mark.parametrize("term", ["", "  ", "!?"])
def test_a_term_that_could_never_be_found_is_refused(term: str) -> None:
    with pytest.raises(ConfigError):
        Terms(["gore", term])
