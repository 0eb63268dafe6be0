import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.job import Context, Job
from pipeline.writing.lines import cleaned
from pipeline.writing.reply import PROMPT_LIMIT, Draft, brief_from, parse_reply

MakeJob = Callable[..., Job]

TEXT, PROMPT = "Viora shows a circle.", "a white circle on teal"


@pytest.mark.parametrize(
    "reply",
    [
        f"text: {TEXT}\nprompt: {PROMPT}",
        f"Text : {TEXT}\n\nPROMPT: {PROMPT}\n",
        f"**Text:** {TEXT}\n**Prompt:** {PROMPT}",
        f"**Text**: {TEXT}\n\n**Image prompt**:\n\n{PROMPT}\n\nLet me know if you need more!",
        f"### text: {TEXT}\n- prompt: `{PROMPT}`",
        f"1. text: {TEXT}\n2. prompt: “{PROMPT}”",
        f'prompt: "{PROMPT}"\ntext: {TEXT}',
        f"Sure, here you are.\ntext: {TEXT}\nprompt: {PROMPT}",
        json.dumps({"text": TEXT, "prompt": PROMPT}),
        "```json\n" + json.dumps({"Text": TEXT, "Prompt": PROMPT}, indent=2) + "\n```",
        "Here: " + json.dumps({"prompt": PROMPT, "text": TEXT, "n": 1}) + " Done.",
        f"<think>prompt: a skull\n</think>\ntext: {TEXT}\nprompt: {PROMPT}",
    ],
)
def test_finds_text_and_prompt(reply: str) -> None:
    assert parse_reply(reply) == Draft(TEXT, PROMPT)


@pytest.mark.parametrize("reply", [f"prompt: {PROMPT}", PROMPT, f'"{PROMPT}"', f" {PROMPT}\n"])
def test_finds_a_prompt_alone(reply: str) -> None:
    assert parse_reply(reply) == Draft("", PROMPT)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "\n\n",
        "prompt:",
        f"text: {TEXT}",
        '{"text": "Viora shows a circle.", "prompt": "a whi',
        '{"text": "only"}',
        '["a", "list"]',
        "{" * 10_000,
        "<think>I wonder about",
        "I'm sorry, I can't help with that.",
        "I cannot describe this picture.",
        "Here you are.\nA circle.\nOn teal.",
    ],
)
def test_what_is_not_usable_has_no_prompt(reply: str) -> None:
    assert not parse_reply(reply).prompt


def test_several_lines_of_text_are_one_text() -> None:
    assert cleaned(parse_reply(f"text: one\ntwo\nprompt: {PROMPT}").text, 100) == "one two"


@given(st.text(alphabet=st.sampled_from("aw.:/[]()<>{}\n \"'-texprom"), max_size=300))
def test_no_reply_breaks_it_or_smuggles_a_url(reply: str) -> None:
    prompt = cleaned(parse_reply(reply).prompt, PROMPT_LIMIT)
    assert "://" not in prompt


def test_a_long_hostile_reply_is_read_in_no_time() -> None:
    for piece in ("a.", "[", "\n", "{", "<lora:", "http:", "- ", "text "):
        parse_reply(piece * 100_000)
        cleaned(piece * 100_000, PROMPT_LIMIT)


def test_a_brief_has_the_given_text_and_the_negative(make_job: MakeJob) -> None:
    job = make_job(mode="keywords", negative="blurry")
    brief = brief_from(job, Context(), Draft("written", PROMPT))
    assert (brief.text, brief.prompt, brief.negative) == ("Viora logo", PROMPT, "blurry")


def test_the_prompt_stands_in_for_a_missing_text(make_job: MakeJob) -> None:
    assert brief_from(make_job(), Context(), Draft("", PROMPT)).text == PROMPT


@pytest.mark.parametrize("prompt", ["", " \n", "https://evil.example/", "…!"])
def test_a_brief_without_a_prompt_is_the_jobs_failure(make_job: MakeJob, prompt: str) -> None:
    with pytest.raises(JobError, match="no prompt"):
        brief_from(make_job(), Context(), Draft(TEXT, prompt))


def test_a_long_prompt_is_cut(make_job: MakeJob) -> None:
    brief = brief_from(make_job(), Context(), Draft("", "word " * 2000))
    assert PROMPT_LIMIT - 10 < len(brief.prompt) <= PROMPT_LIMIT
