"""What a worker opens, and when, and that it closes all of it."""

import gc
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from flows.runs.knowledge import ingest_path
from flows.runs.pilot import run_pilot
from pipeline import http, profile
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.models import model_digests
from pipeline.errors import InUse, ModelError, Unavailable
from pipeline.job import Context, ImageArray, JudgeRequest, Score
from pipeline.jobfile.reader import Overrides
from pipeline.models import Models
from pipeline.profile import JudgeProfile, Plug, Profile, QdrantProfile
from pipeline.record import RunSpec, Status
from pipeline.retrieval.client import open_client
from pipeline.safety.moderation import Moderation
from pipeline.settings import Settings, load_settings
from tests.harness.jobs import make_job, make_spec


class KeeperProfile(JudgeProfile):
    """The keys of a `[[judge]]` with something to close."""

    kind: Literal["keeper"] = "keeper"
    fails: Literal["", "made", "closed"] = ""


class Keeper:
    """The Judge port with something to close."""

    closed: ClassVar[list[str]] = []

    def __init__(self, _models: Models, profile: KeeperProfile) -> None:
        self._profile = profile
        if profile.fails == "made":
            raise ModelError("it cannot be made")

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        raise NotImplementedError

    def close(self) -> None:
        self.closed.append(self._profile.name)
        if self._profile.fails == "closed":
            raise OSError("it cannot be closed")


@pytest.fixture(autouse=True)
def _keepers(monkeypatch: pytest.MonkeyPatch) -> None:
    Keeper.closed.clear()
    monkeypatch.setitem(
        profile.JUDGES, "keeper", Plug(f"{__name__}:KeeperProfile", f"{__name__}:Keeper")
    )


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Only `close` frees what is open: no garbage is collected meanwhile."""
    gc.disable()
    yield
    gc.enable()


def opened(tmp_path: Path, text: str) -> tuple[Settings, RunSpec]:
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "shapes"\n{text}\n', encoding="utf-8")
    settings = load_settings(home=tmp_path, store=str(tmp_path / "out"), profile=str(path))
    chosen = settings.chosen_profile
    models = model_digests(settings, chosen)
    return settings, make_spec(profile=chosen.model_dump(mode="json"), models=models)


def test_the_knowledge_base_is_opened_by_the_first_job_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.assemble.assembly.PATIENCE", 0.0)
    held = open_client("", "", tmp_path / "knowledge")
    assembly = Assembly(load_settings(home=tmp_path, store=str(tmp_path / "out")))
    plain, other = (assembly._retriever(QdrantProfile(dense=dense)) for dense in (0.6, 0.5))
    asking = make_job(1, collection="brands", passages=1)
    assert plain.retrieve(make_job(1)) == Context()
    with pytest.raises(InUse, match="PRESSRUN_QDRANT_URL"):
        plain.retrieve(asking)
    held.close()
    for retriever in (plain, other):  # one process, one lock
        with pytest.raises(Exception, match="There is no collection 'brands'"):
            retriever.retrieve(asking)
    assembly.close()


@pytest.mark.usefixtures("no_collection")
def test_a_closed_assembly_leaves_no_thread_and_no_lock(tmp_path: Path) -> None:
    captions = 'concept = "a red circle"\nunlike = ["a blue ring"]'
    guard = f'[[guard]]\nkind = "concept"\nname = "logos"\n{captions}'
    settings, spec = opened(tmp_path, guard)
    before, assembly = set(threading.enumerate()), Assembly(settings)
    ports = assembly.ports(spec)
    assembly.load(Profile.model_validate(spec.profile))
    with pytest.raises(Exception, match="There is no collection"):
        ports.retriever.retrieve(make_job(1, collection="brands", passages=1))
    begun = set(threading.enumerate()) - before
    roles = {"batch-writer", "batch-judge", "batch-concept", "engine"}
    assert roles <= {thread.name for thread in begun}
    assembly.close()
    assert not [thread.name for thread in begun if thread.is_alive()]
    open_client("", "", tmp_path / "knowledge").close()
    assembly.close()


@pytest.mark.parametrize("fails", ["", "made", "closed"])
def test_what_is_open_closes_in_reverse_order_whatever_fails(tmp_path: Path, fails: str) -> None:
    kind = 'kind = "keeper"\nagainst = "text"\n'
    names = {"first": "", "second": "", "third": fails}
    text = [f'[[judge]]\nname = "{name}"\nfails = "{how}"\n{kind}' for name, how in names.items()]
    settings, spec = opened(tmp_path, '[writer]\nkind = "template"\n' + "".join(text))
    assembly = Assembly(settings)
    if fails == "made":
        with pytest.raises(ModelError, match="cannot be made"):
            assembly.ports(spec)
    else:
        assembly.ports(spec)
    if fails == "closed":
        with pytest.raises(OSError, match="cannot be closed"):
            assembly.close()
    else:
        assembly.close()
    left = ["second", "first"]
    assert Keeper.closed == (left if fails == "made" else ["third", *left])


def test_the_connections_of_writer_and_judge_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("WRITER", "JUDGE"):
        monkeypatch.setenv(f"PRESSRUN_{role}_URL", "http://127.0.0.1:9/v1")
    writer = '[writer]\nkind = "endpoint"\nmodel = "m"\nchecks = 1\n'
    settings, spec = opened(tmp_path, f'{writer}[[judge]]\nkind = "questions_endpoint"\nmodel="m"')
    assembly = Assembly(settings)
    ports = assembly.ports(spec)
    ends = [ports.writer._endpoint, assembly._judge(settings.chosen_profile.judge[0])._endpoint]  # type: ignore[attr-defined]
    assert not any(each._client._client.is_closed for each in ends)
    assembly.close()
    assert all(each._client._client.is_closed for each in ends)


@pytest.mark.usefixtures("no_collection")
def test_a_pilot_gives_the_knowledge_base_back(tmp_path: Path) -> None:
    settings, _ = opened(tmp_path, '[writer]\nkind = "template"')
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("keywords\nred circle\n", encoding="utf-8")
    job = make_job(collection="brands", passages=1)
    result = run_pilot([job], 1, jobs, Overrides(), settings)
    assert result.statuses == {Status.FAILED: 1}, "there is no such collection"
    open_client("", "", tmp_path / "knowledge").close()


def test_a_library_closes_all_that_it_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSRUN_GUARD_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)
    settings, _ = opened(tmp_path, '[[guard]]\nkind = "endpoint"\n')
    made, close, closed = list[Moderation](), Models.close, list[Models]()
    start = Moderation.__init__

    def noted(self: Moderation, *given: Any) -> None:
        start(self, *given)
        made.append(self)

    def closing(models: Models) -> None:
        closed.append(models)
        close(models)

    monkeypatch.setattr(Moderation, "__init__", noted)
    monkeypatch.setattr(Models, "close", closing)
    source = tmp_path / "sources.jsonl"
    source.write_text('{"id": "a", "text": "red"}\n', encoding="utf-8")
    with pytest.raises(Unavailable):
        ingest_path(source, "brands", settings)
    assert len(closed) == len(made) == 1
    assert made[0]._endpoint._client._client.is_closed
    open_client("", "", tmp_path / "knowledge").close()
