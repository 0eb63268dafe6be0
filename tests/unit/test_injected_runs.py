"""Hostile passages in whole jobs: retrieved from a real collection, they change the text alone."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr
from qdrant_client import QdrantClient

from pipeline.job import (
    Embedding,
    ImageArray,
    InputImage,
    Job,
    JudgeRequest,
    LoadedImage,
    RenderRequest,
    Score,
    digest_of,
)
from pipeline.ports import Ports, Pruner, Writer
from pipeline.profile import EndpointWriterProfile, QdrantProfile, TemplateWriterProfile
from pipeline.record import Outcome, Status
from pipeline.retrieval.embedders import Embedders
from pipeline.retrieval.ingest import ingest
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.retrieval.retriever import QdrantRetriever
from pipeline.run import run_job
from pipeline.safety.guards import Guards, TextGuard
from pipeline.safety.terms import Terms
from pipeline.writing.endpoint import EndpointWriter
from pipeline.writing.template import TemplateWriter
from tests.harness.chat_server import Call, Reply, chat_server, completion
from tests.harness.injections import GRAMMAR, Injection, each_injection, injections
from tests.harness.jobs import make_job
from tests.harness.libraries import blocking, library

JOB = make_job(
    id="j1", keywords="Viora", negative="blur", candidates=3, height=32, steps=7, guidance=2.5,
    seed=41, collection="hostile", passages=2, mode="generated", wave=2,
)  # fmt: skip
ORDER = RenderRequest(
    prompt="", negative="blur", width=64, height=32, steps=7, guidance=2.5, seeds=(41, 42, 43)
)


class Parts:
    """Renderer, judge and books that note what they are asked."""

    def __init__(self) -> None:
        self.requests: list[RenderRequest] = []

    def load(self, image: InputImage, width: int, height: int) -> LoadedImage:
        raise AssertionError("the rows name no images")

    def embed(self, image: InputImage) -> Embedding:
        raise AssertionError("the rows name no images")

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        self.requests.append(request)
        return [np.full((32, 64, 3), 0.5, np.float32) for _ in request.seeds]

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
        return [Score(raw=0.5, calibrated=0.75) for _ in images]

    def commit(self, outcome: Outcome, image: ImageArray | None) -> Outcome:
        return outcome


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> QdrantRetriever:
    """Over a collection that holds every injection, found by its title."""
    path = tmp_path_factory.mktemp("knowledge") / "hostile.jsonl"
    rows = [
        {"title": _title(hostile), "source": _title(hostile), "text": hostile.text}
        for hostile in injections()
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    client = QdrantClient(":memory:")
    report = ingest(library(client, path.parent), path, JOB.collection)
    assert report.added >= len(rows)
    assert not report.bad
    return QdrantRetriever(lambda: client, Embedders(HashedEmbedder()), QdrantProfile())


def _title(injection: Injection) -> str:
    """A word that no other passage holds."""
    return digest_of(injection.text)


@pytest.fixture(scope="module")
def obedient() -> Iterator[EndpointWriter]:
    """The writer of a server whose model repeats what it is told as its prompt."""

    def answer(call: Call) -> Reply:
        told = call.body["messages"][1]["content"]
        settings = {"steps": 500, "seed": 1, "negative": "", "collection": "other"}
        return completion(json.dumps({"text": told, "prompt": told} | settings))

    with chat_server(answer) as server:
        profile = EndpointWriterProfile(model="chat")
        writer = EndpointWriter(profile, server.url, SecretStr(""))
        yield writer
        writer.close()


@pytest.fixture(scope="module")
def template() -> TemplateWriter:
    return TemplateWriter(TemplateWriterProfile(prompt_template="{keywords}, {style} {passages}"))


@pytest.fixture(params=["template", "obedient"])
def writer(request: pytest.FixtureRequest) -> Writer:
    found: Writer = request.getfixturevalue(request.param)
    return found


def run(
    job: Job, retriever: QdrantRetriever, writer: Writer, guard: Guards | None = None
) -> tuple[Outcome, list[RenderRequest]]:
    parts = Parts()
    ports = Ports(
        guard=guard or Guards(), retriever=retriever, writer=writer, inputs=parts,
        renderer=parts, judge=parts,
        records=parts, run="r", judge_against="prompt", models={"": {}},
    )  # fmt: skip
    return run_job(job, ports), parts.requests


@each_injection
def test_a_passage_changes_nothing_of_a_job_but_its_text(
    retriever: QdrantRetriever, writer: Writer, injection: Injection
) -> None:
    title = _title(injection)
    job = JOB.model_copy(update={"keywords": title})
    outcome, requests = run(job, retriever, writer)
    assert title in [passage.title for passage in outcome.context.passages]
    assert outcome.status is Status.ACCEPTED
    assert [request.model_copy(update={"prompt": ""}) for request in requests] == [ORDER]
    assert outcome.job == job
    assert outcome.brief
    assert requests[0].prompt == outcome.brief.prompt
    assert not GRAMMAR.search(requests[0].prompt)


@pytest.mark.parametrize(
    "spelling", ["skull", "SKULL", "s\u200bk\u00adull", "s\u3164kull", "sk\ufe00ull", "ｓｋｕｌｌ"]
)
def test_what_a_passage_brings_into_the_prompt_is_guarded(
    template: TemplateWriter, spelling: str, tmp_path: Path
) -> None:
    client, path = QdrantClient(":memory:"), tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"text": f"Viora shows a {spelling}."}))
    ingest(library(client, path.parent), path, JOB.collection)
    retriever = QdrantRetriever(lambda: client, Embedders(HashedEmbedder()), QdrantProfile())
    of_prompts = TextGuard("bones", "drop", ("prompt",), Terms(["skull"]).reason)
    outcome, requests = run(JOB, retriever, template, Guards([of_prompts]))
    assert (outcome.status, requests) == (Status.BLOCKED, [])
    assert outcome.reason == "guard 'bones' at prompt: the text holds 'skull'"
    outcome, requests = run(JOB, retriever, template, blocking("skull"))
    assert (outcome.status, len(requests)) == (Status.ACCEPTED, 1)
    assert outcome.context.passages == ()
    assert "'terms' at passages: the text holds 'skull': source" in outcome.notices[0]
    assert outcome.brief
    assert outcome.brief.prompt.strip(", ") == "Viora"
    outcome, requests = run(JOB, retriever, template, blocking("bone"))
    assert (outcome.status, len(requests)) == (Status.ACCEPTED, 1)
