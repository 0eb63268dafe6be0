"""Parsing of a language model's reply into a brief: lenient in form, strict in content."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from pipeline.errors import JobError
from pipeline.job import Brief, Check, CheckKind, Context, Job
from pipeline.lines import cleaned, one_line, plain_words
from pipeline.media.checks import says_something
from pipeline.telemetry import notice
from pipeline.writing.messages import TEXT_LIMIT, UNCUT, given_text

PROMPT_LIMIT = 4096
REPLY_LIMIT = 20_000
QUESTION_LIMIT = 300
"""Lengths in characters."""
CUT_OFF = "the writer's reply was cut off at max_tokens"
NO_PROMPT = "the writer's reply holds no prompt"

_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(
    r"^[ \t>#*_\-]*(?:\d[.)] *)?(?:image )?(text|prompt)[ *_]*:[*_]*", re.IGNORECASE | re.MULTILINE
)
_TEXT_AGAIN = re.compile(r"""^(?:[\s"'`“*_]*(?:image )?text[ *_]*:[*_]*)+""", re.IGNORECASE)
_PROMPT_AGAIN = re.compile(r"""^(?:[\s"'`“*_]*(?:image )?prompt[ *_]*:[*_]*)+""", re.IGNORECASE)
"""A part's own label at its beginning, once more."""
_CHECK = re.compile(  # bounded: of one line of any reply
    r"[ \t>#*_\-]{0,8}(?:\d{1,2}[.)] {0,3})?check\b[ *_(]{0,4}([a-z]{0,20})[ *_)]{0,4}:"
    r"[*_ \t]{0,4}(.+)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"(i['’]?m sorry|sorry|i can(['’]t|not)|i am unable|as an ai)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Draft:
    """The text, the prompt and the checks of a reply; empty where it has none."""

    text: str = ""
    prompt: str = ""
    checks: tuple[Check, ...] = ()


def brief_from(
    job: Job,
    context: Context,
    draft: Draft,
    sources: tuple[str, ...] = (),
    *,
    checks: int = 0,
    empty: str = NO_PROMPT,
) -> Brief:
    """The job's brief. Its text is the given one, else the written one, else the prompt; `sources`
    are the ids of the retrieved texts that the writer was given, and `checks` the number that it
    was asked for.

    Raises JobError with the reason `empty` where no prompt is left.
    """
    prompt = _kept("prompt", cleaned(draft.prompt, UNCUT), PROMPT_LIMIT)
    if not says_something(prompt):
        raise JobError(empty)
    for embedding in job.embeddings:
        asked = embedding.pattern.search(f"{job.keywords} {job.style}")
        if asked and not embedding.pattern.search(prompt):
            prompt = f"{prompt}, {embedding.name}"
            notice(
                f"the writer left out the embedding {embedding.name!r}; it is at the prompt's end"
            )
    text = given_text(job, context, UNCUT) or cleaned(draft.text, UNCUT)
    return Brief(
        text=_kept("text", text, TEXT_LIMIT) or prompt,
        prompt=prompt,
        negative=job.negative,
        sources=sources,
        checks=_asked(draft.checks, checks),
    )


def _asked(written: Sequence[Check], limit: int) -> tuple[Check, ...]:
    """The first checks, as many as were asked for, with a notice where there are none or more."""
    if limit and not written:
        notice("the writer made no checks")
    elif len(written) > limit > 0:
        notice(f"of the writer's {len(written)} checks the first {limit} are asked")
    return tuple(written[:limit])


def _kept(name: str, line: str, limit: int) -> str:
    """The line up to `limit` characters, with a notice about any cut."""
    kept = one_line(line, limit)
    if len(kept) < len(line):
        notice(f"the {name} was cut from {len(line)} to {len(kept)} characters")
    return kept


def parse_reply(reply: str, *, checks: int = 0) -> Draft:
    """Text and prompt of a reply, as plain words: labelled lines, a JSON object or a bare line;
    and its checks, where any were asked for.

    Case, markdown, code fences and a thinking model's thoughts are ignored.
    """
    if len(reply) > REPLY_LIMIT:
        notice(f"the writer's reply was cut from {len(reply)} to {REPLY_LIMIT} characters")
    body = _THOUGHT.sub("", reply[:REPLY_LIMIT]).strip()
    draft = _from_json(body)
    if draft is None:
        lines = [(line, _CHECK.match(line) if checks else None) for line in body.splitlines()]
        body = "\n".join(line for line, check in lines if not check).strip()
        draft = _from_labels(body) or _from_bare_line(body) or Draft()
        asked = _checks([(check[1], check[2]) for _, check in lines if check])
        draft = replace(draft, checks=asked)
    text, prompt = (
        plain_words(repeated.sub("", line), REPLY_LIMIT)
        for line, repeated in ((draft.text, _TEXT_AGAIN), (draft.prompt, _PROMPT_AGAIN))
    )
    return replace(draft, text=text, prompt=prompt)


def _checks(written: Sequence[tuple[Any, Any]]) -> tuple[Check, ...]:
    """The checks of kinds and questions as a model wrote them: of an object where it names no
    kind; without those that say nothing.
    """
    kinds = {str(kind): kind for kind in get_args(CheckKind)}
    asked = [
        (kinds.get(str(kind).strip().lower(), "object"), plain_words(question, QUESTION_LIMIT))
        for kind, question in written
        if isinstance(question, str)
    ]
    return tuple(Check(kind=kind, question=words) for kind, words in asked if says_something(words))


def _from_json(body: str) -> Draft | None:
    start = body.find("{")
    if start < 0:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(body, start)
    except (ValueError, RecursionError):  # also a number of thousands of digits
        return None
    parts = {str(k).strip().lower(): v for k, v in value.items()}
    text, prompt = (parts.get(name) for name in ("text", "prompt"))
    if not isinstance(prompt, str):
        return None
    listed = parts.get("checks")
    asked = [
        (each.get("kind"), each.get("question")) if isinstance(each, dict) else ("", each)
        for each in (listed if isinstance(listed, list) else [])
    ]
    return Draft(text if isinstance(text, str) else "", prompt, _checks(asked))


def _from_labels(body: str) -> Draft | None:
    parts = _LABEL.split(body)[1:]
    found: dict[str, str] = {}
    for label, content in zip(parts[::2], parts[1::2], strict=True):
        found.setdefault(label.lower(), content.strip())
    if not found.get("prompt"):
        return None
    return Draft(_bare(found.get("text", "")), _bare(found["prompt"].splitlines()[0]))


def _from_bare_line(body: str) -> Draft | None:
    """A single line without labels is a prompt, unless it is broken JSON or a refusal."""
    line = _bare(body)
    broken = "\n" in line or line.startswith(("{", "[", "<")) or _LABEL.match(line)
    return None if broken or _REFUSAL.match(line) else Draft(prompt=line)


def _bare(text: str) -> str:
    """The text without markup around the whole value: bold, code, a pair of quotes."""
    bare = text.strip().strip("*_`").strip()
    quoted = len(bare) > 1 and bare[0] + bare[-1] in {'""', "''", "“”", "«»"}
    return bare[1:-1].strip() if quoted and bare[0] not in bare[1:-1] else bare
