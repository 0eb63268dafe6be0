from collections.abc import Callable

import pytest

from pipeline.errors import ConfigError, JobError
from pipeline.job import Check, Context, Job
from pipeline.profile import TemplateWriterProfile
from pipeline.telemetry import metered
from pipeline.writing.template import TemplateWriter

MakeJob = Callable[..., Job]
MakeContext = Callable[..., Context]


def writer(
    prompt: str = "{keywords} {style}", text: str = "{keywords}. {passages}"
) -> TemplateWriter:
    profile = TemplateWriterProfile(text_template=text, prompt_template=prompt)
    return TemplateWriter(profile)


def test_fills_both_templates(make_job: MakeJob, make_context: MakeContext) -> None:
    job = make_job(style="small", meta={"product": "mug"})
    brief = writer("{keywords}, {style}, on a { meta.product }").write(
        job, make_context("A.", "B.")
    )
    assert brief.text == "Viora logo. A. B."
    assert brief.prompt == "Viora logo, small, on a mug"


def test_fills_its_questions(make_job: MakeJob) -> None:
    questions = (Check(question="Is it {style}?", kind="attribute"), Check(question="{keywords}?"))
    filled = TemplateWriter(TemplateWriterProfile(questions=questions))
    checks = filled.write(make_job(style="small"), Context()).checks
    assert [(check.kind, check.question) for check in checks] == [
        ("attribute", "Is it small?"),
        ("object", "Viora logo?"),
    ]
    with metered() as meter:
        checks = filled.write(make_job(keywords="see https://e.example/ (red)"), Context()).checks
    assert [check.question for check in checks] == ["Is it ?", "see (red)?"]
    assert meter.notices == []
    styled = TemplateWriter(TemplateWriterProfile(questions=(Check(question="{style}"),)))
    with metered() as meter:
        assert styled.write(make_job(), Context()).checks == ()
    assert meter.notices == ["1 of the template's questions say nothing"]
    with pytest.raises(ConfigError, match=r"\{colour\}"):
        TemplateWriter(TemplateWriterProfile(questions=(Check(question="Is it {colour}?"),)))


def test_what_is_filled_in_is_not_filled_in_again(make_job: MakeJob) -> None:
    brief = writer("{keywords}").write(make_job(keywords="{style} {meta.x}", style="s"), Context())
    assert brief.prompt == "{style} {meta.x}"


def test_the_prompt_may_use_the_text(make_job: MakeJob, make_context: MakeContext) -> None:
    job = make_job(mode="retrieved")
    assert writer("photo: {text}").write(job, make_context("A fact.")).prompt == "photo: A fact."


@pytest.mark.parametrize(
    ("mode", "prompt", "text", "sources"),
    [
        ("generated", "{keywords}", "{passages}", ("0", "1")),
        ("generated", "word " * 640 + "{ passages }", "{keywords}", ("0",)),
        ("generated", "{keywords}", "{keywords}", ()),
        ("retrieved", "{keywords}", "{keywords}", ("0", "1")),
        ("keywords", "{keywords}", "{passages}", ()),
    ],
)
def test_the_sources_are_those_that_a_template_takes_in_and_no_limit_leaves_out(
    make_job: MakeJob, make_context: MakeContext, mode: str, prompt: str, text: str, sources: object
) -> None:
    # the prompt has room left for the first, a text for two, and the last has no word
    passages = ("The Viora logo. " + "first " * 180, "Nexo. " + "second " * 150, "third " * 90, "★")
    job = make_job(mode=mode, keywords="The Viora logo")
    assert writer(prompt, text).write(job, make_context(*passages)).sources == sources


def test_a_field_that_the_row_lacks_fails_the_job(make_job: MakeJob) -> None:
    with pytest.raises(JobError, match=r"meta\.product"):
        writer("{meta.product}").write(make_job(), Context())


@pytest.mark.parametrize("template", ["{keyword}", "{}", "{keywords.__class__}", "{text}"])
def test_an_unknown_name_is_told_at_once(template: str) -> None:
    with pytest.raises(ConfigError, match="names"):
        writer(text=template)


def test_a_prompt_may_be_emoji_alone(make_job: MakeJob) -> None:
    assert writer("{keywords}").write(make_job(keywords="🔴 ⬛"), Context()).prompt == "🔴 ⬛"


def test_a_template_that_makes_a_prompt_without_a_word_is_named_in_the_error(
    make_job: MakeJob,
) -> None:
    with pytest.raises(JobError, match="the writer's template makes a prompt without a word"):
        writer("{keywords}").write(make_job(keywords="https://example.com/a"), Context())
