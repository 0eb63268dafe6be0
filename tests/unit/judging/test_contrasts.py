"""Briefs that an image was not made for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job import Check, JudgeRequest
from pipeline.judging.contrasts import CHANGES, OTHER, contrasts, swapping
from tests.harness.jobs import request_of


def changed(request: JudgeRequest, *against: str) -> set[str]:
    found = contrasts(request, [], against or ("prompt",), 99, 0)  # type: ignore[arg-type]
    return {each.request.prompt for each in found}


def test_one_word_is_changed_in_every_text_and_check() -> None:
    asked = (Check(question="Is there a red ball?", kind="attribute"),)
    request = JudgeRequest("a red ball, photo", "Red balls roll.", "red ball", asked)
    found = contrasts(request, [], ("prompt", "text", "keywords"), 99, 0)
    assert {each.kind for each in found} == {"colour"}
    blue = next(each.request for each in found if "blue" in each.request.prompt)
    assert (blue.prompt, blue.text, blue.keywords) == (
        "a blue ball, photo",
        "Blue balls roll.",
        "blue ball",
    )
    assert blue.checks[0].question == "Is there a blue ball?"


def test_a_word_that_a_judge_does_not_read_is_not_changed() -> None:
    request = JudgeRequest("a red ball on white", "A red ball.", "ball")
    assert all("white" in prompt for prompt in changed(request, "prompt", "text"))
    assert not changed(request, "keywords")
    asked = (Check(question="Is there a ball?", kind="object"),)
    assert not changed(JudgeRequest("a red ball", "", "", asked))


def test_a_word_that_stands_there_already_takes_no_other_words_place() -> None:
    prompts = changed(request_of("a red ball on a blue cloth"))
    assert not any(prompt.count("blue") > 1 or prompt.count("red") > 1 for prompt in prompts)


def test_words_within_words_stay() -> None:
    assert not changed(request_of("a redwood starling at Blackpool"))


@pytest.mark.parametrize(
    ("text", "word", "new", "wanted"),
    [
        ("An orange cat", "orange", "blue", "A blue cat"),
        ("a red cat, RED", "red", "orange", "an orange cat, ORANGE"),
        ("Red", "red", "blue", "Blue"),
    ],
)
def test_articles_and_capitals_fit(text: str, word: str, new: str, wanted: str) -> None:
    assert swapping(word, new)(text) == wanted


def test_another_rows_brief_says_something_else() -> None:
    own = request_of("a red ball")
    others = [request_of(text) for text in ("a red ball", "red ball on grass", "a ball", "a dog")]
    assert [each.request.prompt for each in contrasts(own, others, ("prompt",), 1, 0)] != ["a dog"]
    found = contrasts(own, others, ("prompt",), 9, 0)
    assert [each.request.prompt for each in found if each.kind == OTHER] == ["a dog"]


def test_no_word_and_no_other_row_give_none() -> None:
    assert contrasts(request_of("a dog"), [], ("prompt",), 8, 0) == []


words = st.sampled_from([word for _, words, _ in CHANGES for word in words.split()])


@given(st.lists(words, min_size=1, max_size=4), st.integers(1, 8), st.integers(0, 99))
def test_contrasts_differ_from_the_brief_and_from_each_other(
    said: list[str], count: int, seed: int
) -> None:
    own, others = request_of("a " + " a ".join(said)), [request_of(f"dog {i}") for i in range(8)]
    found = contrasts(own, others, ("prompt", "text"), count, seed)
    assert found == contrasts(own, others, ("prompt", "text"), count, seed)
    prompts = [each.request.prompt for each in found]
    assert len({own.prompt, *prompts}) == 1 + len(prompts) == 1 + count
    near = [each for each in found if each.kind != OTHER]
    assert len(near) < count or count == 1
    for each in near:
        assert len(each.request.prompt.split()) == len(own.prompt.split())
