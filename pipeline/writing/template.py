"""The writer without a model, which fills in the profile's templates."""

import re

from pipeline.errors import ConfigError, JobError
from pipeline.job import Brief, Check, Context, Job, Rejected
from pipeline.lines import cleaned, one_line, plain_words
from pipeline.media.checks import says_something
from pipeline.profile import TemplateWriterProfile
from pipeline.telemetry import notice
from pipeline.writing.messages import KEYWORDS_LIMIT, PASSAGE_LIMIT, UNCUT, given_text, quoted
from pipeline.writing.reply import QUESTION_LIMIT, Draft, brief_from

FIELD = re.compile(r"\{([^{}]*)\}")
KNOWN = frozenset({"keywords", "style", "passages"})
_EMPTY = "the writer's template makes a prompt without a word: links and tags are taken out of it"


class TemplateWriter:
    """The Writer port over two templates with {keywords}, {style}, {passages} and {meta.NAME}.

    The prompt's template also takes {text}.
    """

    def __init__(self, profile: TemplateWriterProfile) -> None:
        _check(profile.text_template, KNOWN)
        _check(profile.prompt_template, KNOWN | {"text"})
        for check in profile.questions:
            _check(check.question, KNOWN)
        self._text, self._prompt = profile.text_template, profile.prompt_template
        self._questions = profile.questions

    def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
        """The filled templates, whatever was rejected. Raises JobError for a row without a meta
        field that they name.
        """
        del rejected
        passages = [plain_words(passage.text, PASSAGE_LIMIT) for passage in context.texts]
        fields = {
            "keywords": one_line(job.keywords, KEYWORDS_LIMIT),
            "style": one_line(job.style, KEYWORDS_LIMIT),
            "passages": one_line(" ".join(passages), UNCUT),
            **{f"meta.{name}": one_line(value, KEYWORDS_LIMIT) for name, value in job.meta.items()},
        }
        text = given_text(job, context)
        if text is None:
            text = _fill(self._text, fields)
        prompt = _fill(self._prompt, fields | {"text": text})
        asked = [
            (check.kind, cleaned(_fill(check.question, fields), QUESTION_LIMIT))
            for check in self._questions
        ]
        checks = tuple(
            Check(kind=kind, question=question)
            for kind, question in asked
            if says_something(question)
        )
        if len(checks) < len(asked):
            notice(f"{len(asked) - len(checks)} of the template's questions say nothing")
        draft = Draft(text, prompt, checks)
        brief = brief_from(job, context, draft, checks=len(checks), empty=_EMPTY)
        filled = {"retrieved": "{passages}", "generated": self._text}.get(job.mode, "")
        if "passages" not in _names(filled + self._prompt):
            return brief
        sources = quoted(context, f"{brief.text}\n{brief.prompt}")
        return brief.model_copy(update={"sources": sources})


def _fill(template: str, fields: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name not in fields:
            raise JobError(f"the row has no {name!r}, which the writer's template names")
        return fields[name]

    return FIELD.sub(value, template)


def _names(template: str) -> set[str]:
    return {name.strip() for name in FIELD.findall(template)}


def _check(template: str, known: frozenset[str]) -> None:
    names = _names(template)
    if unknown := {n for n in names - known if not n.startswith("meta.")}:
        listed = ", ".join(f"{{{name}}}" for name in sorted(unknown))
        raise ConfigError(f"the writer's template {template!r} names {listed}")
