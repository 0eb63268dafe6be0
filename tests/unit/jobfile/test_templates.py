import pytest

from pipeline.jobfile.templates import expand

META = {"product": "red {heart|star} ${meta.colour}", "colour": "teal"}


def chosen(template: str, draws: int = 200) -> set[str]:
    return {expand(template, META, str(key)) for key in range(draws)}


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("plain | text", "plain | text"),
        ("on ${meta.colour}", "on teal"),
        ("${ meta.colour }", "teal"),
        (r"\{red\|blue\} \\ \${meta.colour}", r"{red|blue} \ ${meta.colour}"),
        (r"{a\|b}", "a|b"),
        (r"C:\new", r"C:\new"),
        ("5$ {note}", "5$ note"),
        ("{only}", "only"),
        ("{}", ""),
    ],
)
def test_references_and_choices_are_expanded(template: str, wanted: str) -> None:
    assert expand(template, META, "key") == wanted


def test_substituted_text_is_not_a_template() -> None:
    assert expand("${meta.product}", META, "key") == META["product"]
    assert chosen("{${meta.product}|${meta.product}}") == {META["product"]}


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{red|blue} circle", {"red circle", "blue circle"}),
        ("{red|{light|dark} blue}", {"red", "light blue", "dark blue"}),
        ("{a|}", {"a", ""}),
        ("{a|b}{a|b}", {"aa", "ab", "ba", "bb"}),
        ("{${meta.colour}|gray}", {"teal", "gray"}),
    ],
)
def test_every_choice_is_taken_by_some_key(template: str, wanted: set[str]) -> None:
    assert chosen(template) == wanted


def test_a_choice_is_fair_and_stays() -> None:
    draws = [expand("{a|b|c|d}", {}, str(key)) for key in range(4000)]
    assert all(900 < draws.count(option) < 1100 for option in "abcd")
    # fixed, so that a job file means the same images tomorrow
    assert [expand("{a|b|c|d}", {}, key) for key in ("k1", "k2", "k3", "k4")] == list("baac")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{red", "never closed"),
        ("red}", "closes nothing"),
        ("{a|{b}", "never closed"),
        ("${meta.none}", "this row has no meta.none"),
        ("{a|${meta.none}}", "this row has no meta.none"),
        ("${product}", "not of the form"),
        ("${meta.product", "not of the form"),
        ("{" * 9 + "}" * 9, "deeper than 8"),
        ("{" * 2000, "deeper than 8"),
    ],
)
def test_a_template_that_is_wrong(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        expand(template, META, "key")
