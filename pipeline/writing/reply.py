"""Parsing of a language model's reply into a brief: lenient in form, strict in content."""

import json
import re
from dataclasses import dataclass

from pipeline.errors import JobError
from pipeline.job import Brief, Context, Job
from pipeline.media.checks import says_something
from pipeline.telemetry import notice
from pipeline.writing.lines import cleaned, one_line, plain_words
from pipeline.writing.messages import TEXT_LIMIT, UNCUT, given_text

PROMPT_LIMIT = 4096
REPLY_LIMIT = 20_000
"""Lengths in characters."""
CUT_OFF = "the writer's reply was cut off at max_tokens"
NO_PROMPT = "the writer's reply holds no prompt"

_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(
    r"^[ \t>#*_\-]*(?:\d[.)] *)?(?:image )?(text|prompt)[ *_]*:[*_]*", re.IGNORECASE | re.MULTILINE
)
_REFUSAL = re.compile(
    r"(i['’]?m sorry|sorry|i can(['’]t|not)|i am unable|as an ai)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Draft:
    """The text and the prompt of a reply; empty where it has none."""

    text: str = ""
    prompt: str = ""


def brief_from(
    job: Job,
    context: Context,
    draft: Draft,
    sources: tuple[str, ...] = (),
    *,
    empty: str = NO_PROMPT,
) -> Brief:
    """The job's brief. Its text is the given one, else the written one, else the prompt; `sources`
    are the ids of the retrieved texts that the writer was given.

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
    )


def _kept(name: str, line: str, limit: int) -> str:
    """The line up to `limit` characters, with a notice about any cut."""
    kept = one_line(line, limit)
    if len(kept) < len(line):
        notice(f"the {name} was cut from {len(line)} to {len(kept)} characters")
    return kept


def parse_reply(reply: str) -> Draft:
    """Text and prompt of a reply, as plain words: labelled lines, a JSON object or a bare line.

    Case, markdown, code fences and a thinking model's thoughts are ignored.
    """
    if len(reply) > REPLY_LIMIT:
        notice(f"the writer's reply was cut from {len(reply)} to {REPLY_LIMIT} characters")
    body = _THOUGHT.sub("", reply[:REPLY_LIMIT]).strip()
    draft = _from_json(body) or _from_labels(body) or _from_bare_line(body) or Draft()
    return Draft(plain_words(draft.text, REPLY_LIMIT), plain_words(draft.prompt, REPLY_LIMIT))


def _from_json(body: str) -> Draft | None:
    start = body.find("{")
    if start < 0:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(body, start)
    except (ValueError, RecursionError):  # also a number of thousands of digits
        return None
    parts = {str(k).strip().lower(): v for k, v in value.items() if isinstance(v, str)}
    return Draft(parts.get("text", ""), parts["prompt"]) if "prompt" in parts else None


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
