"""Hostile passages before the writers: what a model is told, and what may come of it."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.errors import JobError
from pipeline.job import Context, Passage
from pipeline.models import Models
from pipeline.profile import EndpointWriterProfile, LocalWriterProfile, TemplateWriterProfile
from pipeline.retrieval.sources.reader import read_texts
from pipeline.retrieval.sources.texts import Text
from pipeline.writing.endpoint import EndpointWriter
from pipeline.writing.local import LocalWriter
from pipeline.writing.messages import PASSAGE_LIMIT, TEXT_LIMIT, messages_for
from pipeline.writing.reply import PROMPT_LIMIT
from pipeline.writing.template import TemplateWriter
from tests.harness.chat_server import ChatServer, chat_server, completion
from tests.harness.injections import (
    GRAMMAR,
    Injection,
    each_injection,
    injections,
    of_each_kind,
    parametrised,
)
from tests.harness.jobs import make_job

KEY = "sk-canary-5e1f"
JOB = make_job(
    id="j1", keywords="Viora logo", style="small", negative="blur", steps=1, seed=7, passages=4,
    mode="generated",
)  # fmt: skip
HARMLESS = "The Viora logo is a white circle on teal."

ADDRESS = re.compile(r"://|www\.|(?:javascript|data|mailto|file):\S", re.IGNORECASE)
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ue000-\uf8ff\U000e0000-\U0010ffff]"
    "|[\u200c\u200d\ufe0e\ufe0f]{3}|[\x20-\x7f][\u200c\u200d\ufe0e\ufe0f]"
)
CONTROL = re.compile(r"<\|.*?\|>|<\uff5c.*?\uff5c>|</?s>|\[/?[A-Z_]+\]|<<SYS>>|</?[a-z_]+>")


def ingested(injection: Injection, folder: Path) -> Context:
    """The passages that become of a text."""
    path = folder / "facts.jsonl"
    path.write_text(json.dumps({"title": injection.text[:400], "text": injection.text}))
    texts = list(read_texts(path))
    assert texts
    assert all(isinstance(text, Text) for text in texts)
    return Context(
        passages=tuple(
            Passage(id=str(number), score=1.0, **text.model_dump(exclude={"image"}))
            for number, text in enumerate(texts)
        )
    )


def as_it_is(injection: Injection) -> Context:
    """The passage of a collection that something else has filled."""
    whole = Passage(id="0", score=1.0, text=injection.text, title=injection.text)
    return Context(passages=(whole,))


class Obedient:
    """An endpoint's writer whose model does what a passage wants: it repeats it as its prompt."""

    def __init__(self, server: ChatServer, heard: list[str]) -> None:
        profile = EndpointWriterProfile(model="chat")
        self.writer = EndpointWriter(profile, server.url, SecretStr(KEY))
        self.calls, self.heard = server.calls, heard


@pytest.fixture(scope="module")
def obedient() -> Iterator[Obedient]:
    heard = [HARMLESS]
    with chat_server(
        lambda _: completion(json.dumps({"text": heard[-1], "prompt": f"a circle {heard[-1]}"}))
    ) as server:
        model = Obedient(server, heard)
        yield model
        model.writer.close()


@pytest.fixture(scope="module")
def local(models_root: Path) -> Iterator[LocalWriter]:
    writer = LocalWriter(
        Models(models_root, "cpu"), LocalWriterProfile(model="writer", max_tokens=64)
    )
    yield writer
    writer.close()


def assert_words(prompt: str, limit: int = PROMPT_LIMIT) -> None:
    """Nothing but text that a renderer can draw."""
    for sought in (ADDRESS, HIDDEN, GRAMMAR):
        assert not sought.search(prompt)
    assert 0 < len(prompt) <= limit
    assert len(prompt.splitlines()) == 1


def test_there_are_enough_of_every_kind() -> None:
    kinds = [injection.kind for injection in injections()]
    assert len(kinds) >= 60
    assert len(set(injections())) == len(kinds)
    assert min(map(kinds.count, kinds)) >= 3


@each_injection
def test_a_passage_changes_one_line_of_what_a_server_is_sent(
    obedient: Obedient, tmp_path: Path, injection: Injection
) -> None:
    obedient.writer.write(JOB, as_it_is(Injection("", HARMLESS)))
    for context in (as_it_is(injection), ingested(injection, tmp_path)):
        obedient.writer.write(JOB, context)
        harmless, sent = (call.body for call in (obedient.calls[0], obedient.calls[-1]))
        assert sent | {"messages": []} == harmless | {"messages": []}
        (system, user), expected = sent["messages"], harmless["messages"]
        assert system == expected[0]
        assert user["role"] == "user"
        lines = user["content"].splitlines()
        assert lines[:3] == ["keywords: Viora logo", "style: small", "context:"]
        assert len(lines) == 3 + len(context.passages)
        for line in lines[3:]:
            assert line.startswith("- ")
            assert len(line) < PASSAGE_LIMIT + 200
            assert not CONTROL.search(line)
            assert not HIDDEN.search(line)
        assert KEY not in json.dumps(sent)


@each_injection
def test_a_tokenizer_finds_no_control_token_in_a_passage(
    local: LocalWriter, tmp_path: Path, injection: Injection
) -> None:
    control = set(local._tokenizer.added_tokens_decoder)
    for context in (as_it_is(injection), ingested(injection, tmp_path)):
        content = messages_for(JOB, context)[1]["content"]
        assert control.isdisjoint(local._tokenizer(content)["input_ids"])


@each_injection
def test_the_template_s_prompt_stays_words(tmp_path: Path, injection: Injection) -> None:
    profile = TemplateWriterProfile(prompt_template="a circle {text} {passages}")
    for mode in ("generated", "retrieved"):
        for context in (as_it_is(injection), ingested(injection, tmp_path)):
            prompt = (
                TemplateWriter(profile).write(JOB.model_copy(update={"mode": mode}), context).prompt
            )
            assert_words(prompt)


@each_injection
def test_an_obedient_model_s_prompt_stays_words(obedient: Obedient, injection: Injection) -> None:
    obedient.heard.append(injection.text)
    brief = obedient.writer.write(JOB, as_it_is(injection))
    assert_words(brief.prompt)
    assert_words(brief.text, TEXT_LIMIT)
    assert brief.negative == "blur"


@parametrised(of_each_kind(2))  # a second each, and more
def test_the_small_model_s_prompt_stays_words(
    local: LocalWriter, tmp_path: Path, injection: Injection
) -> None:
    with suppress(JobError):  # a model may be left speechless
        assert_words(local.write(JOB, ingested(injection, tmp_path)).prompt)


def test_what_scripts_and_emoji_need_stays() -> None:
    couple = "\U0001f469\u200d\u2764\ufe0f\u200d\U0001f469"
    needed = f"{couple} \u0645\u06cc\u200c\u062e\u0648 \u0915\u094d\u200d\u0937"
    profile = TemplateWriterProfile(prompt_template="{passages}")
    brief = TemplateWriter(profile).write(JOB, as_it_is(Injection("", needed)))
    assert brief.prompt == needed
