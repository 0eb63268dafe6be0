import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.job import Check, Context, Job, TextualInversion
from pipeline.jobfile.values import FIELD_LIMIT
from pipeline.lines import cleaned
from pipeline.retrieval.sources.chunks import LONGEST
from pipeline.telemetry import metered
from pipeline.writing.messages import KEYWORDS_LIMIT, PASSAGE_LIMIT
from pipeline.writing.reply import PROMPT_LIMIT, Draft, brief_from, parse_reply

MakeJob = Callable[..., Job]
MakeContext = Callable[..., Context]

TEXT, PROMPT = "Viora shows a circle.", "a white circle on teal"
CIRCLE = Check(question="Is there a circle?", kind="object")
TWO = Check(question="Are there two?", kind="count")


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
        f'text: {TEXT}\nprompt: "prompt: {PROMPT}"',
        f"text: **text:** {TEXT}\nprompt: Prompt: image prompt: {PROMPT}",
        json.dumps({"text": f"Text: {TEXT}", "prompt": f"Prompt: {PROMPT}"}),
    ],
)
def test_finds_text_and_prompt(reply: str) -> None:
    assert parse_reply(reply) == Draft(TEXT, PROMPT)


@pytest.mark.parametrize("reply", [f"prompt: {PROMPT}", PROMPT, f'"{PROMPT}"', f" {PROMPT}\n"])
def test_a_reply_of_a_prompt_alone_is_understood(reply: str) -> None:
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
        "I cannot describe this image.",
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


@pytest.mark.parametrize("reply", ["prompt: " + "word " * 900, "word " * 900])
def test_what_is_cut_of_a_reply_is_told(make_job: MakeJob, reply: str) -> None:
    with metered() as meter:
        brief_from(make_job(), Context(), parse_reply(reply))
    assert meter.notices == ["the prompt was cut from 4499 to 4094 characters"]


def test_what_is_cut_of_a_given_text_is_told(make_job: MakeJob, make_context: MakeContext) -> None:
    job, context = make_job(mode="retrieved"), make_context("fact " * 240, "lore " * 240)
    with metered() as meter:
        brief = brief_from(job, context, Draft("", PROMPT))
    assert meter.notices == [f"the text was cut from 2399 to {len(brief.text)} characters"]


def test_what_is_beyond_the_longest_reply_is_told(make_job: MakeJob) -> None:
    with metered() as meter:
        brief_from(make_job(), Context(), parse_reply(f"prompt: {PROMPT}\n" + "more " * 5000))
    assert meter.notices == ["the writer's reply was cut from 25031 to 20000 characters"]


@pytest.mark.parametrize(
    "reply",
    [
        f"text: {TEXT}\nprompt: {PROMPT}\ncheck object: Is there a circle?\n"
        "check count: Are there two?",
        f"prompt: {PROMPT}\n\n- **check (object):** Is there a circle?\n2. Check Count : Are there "
        f"two?\ntext: {TEXT}",
        json.dumps(
            {
                "text": TEXT,
                "prompt": PROMPT,
                "checks": [
                    "Is there a circle?",
                    {"kind": "Count", "question": "Are there two?"},
                    {"kind": "count", "question": "?!"},
                    {"question": 3},
                    None,
                ],
            }
        ),
    ],
)
def test_finds_checks_of_any_form(reply: str) -> None:
    assert parse_reply(reply, checks=3) == Draft(TEXT, PROMPT, (CIRCLE, TWO))


def test_a_kind_that_is_none_is_an_objects() -> None:
    reply = f"prompt: {PROMPT}\ncheck colour: Is it red?\ncheck: Is it [big](http://e.example/)?"
    kinds = [(check.kind, check.question) for check in parse_reply(reply, checks=3).checks]
    assert kinds == [("object", "Is it red?"), ("object", "Is it big?")]


@pytest.mark.parametrize("prompt", ["Checkerboard: black and white tiles", "check count: two cups"])
def test_what_begins_like_a_check_is_none_where_none_is_asked_for(prompt: str) -> None:
    assert parse_reply(f"prompt: {prompt}") == Draft("", prompt)
    assert parse_reply(prompt) == Draft("", prompt)
    asked = parse_reply(f"prompt: {PROMPT}\nCheckerboard: black?", checks=3)
    assert (asked.prompt, asked.checks) == (PROMPT, ())


@pytest.mark.parametrize("filling", ["_", " ", "*", "(", "a", "check"])
def test_a_reply_of_any_signs_is_read_at_once(filling: str) -> None:
    begun = time.thread_time()
    parse_reply("check " + filling * 18_000, checks=3)
    assert time.thread_time() - begun < 2


def test_a_brief_has_as_many_checks_as_were_asked_for(make_job: MakeJob) -> None:
    draft = Draft(TEXT, PROMPT, (CIRCLE, TWO))
    for asked, kept, said in (
        (0, (), []),
        (1, (CIRCLE,), ["of the writer's 2 checks the first 1 are asked"]),
        (2, (CIRCLE, TWO), []),
    ):
        with metered() as meter:
            brief = brief_from(make_job(), Context(), draft, checks=asked)
        assert (brief.checks, meter.notices) == (kept, said)
    with metered() as meter:
        brief_from(make_job(), Context(), Draft(TEXT, PROMPT), checks=3)
    assert meter.notices == ["the writer made no checks"]


def test_nothing_is_told_of_a_reply_that_is_whole(make_job: MakeJob) -> None:
    with metered() as meter:
        brief_from(make_job(), Context(), parse_reply(f"text: {TEXT}\nprompt: {PROMPT}"))
    assert meter.notices == []


def test_the_longest_field_and_the_longest_passage_are_read_whole() -> None:
    assert KEYWORDS_LIMIT >= FIELD_LIMIT
    assert PASSAGE_LIMIT >= LONGEST


@pytest.mark.parametrize(
    ("keywords", "prompt", "added"),
    [
        ("a cup, Tartan", "a cup", True),
        ("a cup, embedding:tartan", "a cup", True),
        ("a cup", "a cup", False),
        ("a tartan cup", "a cup in TARTAN", False),
        ("a tartan cup", "a cup of tartans", True),
    ],
)
def test_an_embedding_of_the_keywords_is_kept_in_the_prompt(
    make_job: MakeJob, keywords: str, prompt: str, added: bool
) -> None:
    job = make_job(keywords=keywords, embeddings=[TextualInversion(name="tartan")])
    with metered() as meter:
        brief = brief_from(job, Context(), Draft(TEXT, prompt))
    assert brief.prompt == (f"{prompt}, tartan" if added else prompt)
    said = "the writer left out the embedding 'tartan'; it is at the prompt's end"
    assert meter.notices == [said] * added
