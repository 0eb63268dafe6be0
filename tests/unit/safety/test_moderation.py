"""A guard that asks a moderation server, and how it takes what servers do."""

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from pipeline import http
from pipeline.assemble.assembly import Assembly
from pipeline.errors import Blocked, Refused, Unavailable
from pipeline.http import ATTEMPTS
from pipeline.job import Context, ImageArray, Passage
from pipeline.media.image import SENT_SIDE, decode
from pipeline.profile import EndpointGuardProfile
from pipeline.record import Outcome, Status
from pipeline.run import run_job
from pipeline.safety.guards import Guards, ImageGuard, TextGuard
from pipeline.safety.moderation import LONGEST, Moderation
from pipeline.settings import Settings, load_settings
from pipeline.telemetry import metered
from tests.harness.chat_server import Call, ChatServer, Reply, chat_server, refusal
from tests.harness.jobs import make_job, make_spec

KEY = "sk-canary-77aa"
PLACES = ("keywords", "passages", "prompt", "inputs", "references", "output")
IMAGES: list[ImageArray] = list(np.random.default_rng(0).random((3, 8, 8, 3), dtype=np.float32))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)


def scores(*results: Mapping[str, object]) -> Reply:
    """An answer with these scores, in the shape of OpenAI's."""
    each = [{"flagged": False, "categories": {}, "category_scores": dict(r)} for r in results]
    return Reply(body=json.dumps({"id": "modr-1", "model": "m", "results": each}).encode())


def by_word(call: Call) -> Reply:
    """Violence where the text says blood, or the image is bright; never anything else."""
    text = isinstance(call.body["input"], str)
    found = "blood" in call.body["input"] if text else decode(image_in(call)).mean() > 0.8
    return scores({"violence": 0.9 if found else 0.1, "sexual": 0.2})


def image_in(call: Call) -> bytes:
    (part,) = call.body["input"]
    assert part["type"] == "image_url"
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data, validate=True)


def guards(server: ChatServer, **keys: Any) -> Guards:
    profile = EndpointGuardProfile(**keys)
    check = Moderation(Settings(guard_url=server.url, guard_api_key=SecretStr(KEY)), profile)
    text = TextGuard("server", "drop", PLACES, check.found)
    return Guards([text], [ImageGuard("server", "drop", PLACES, profile.threshold, check)])


def test_texts_and_images_are_refused_by_their_scores() -> None:
    bright = np.full((8, 8, 3), 0.95, np.float32)
    with chat_server(by_word) as server, metered() as meter:
        guard = guards(server, model="omni-moderation-latest")
        guard.check_text("a red circle", "keywords")
        with pytest.raises(
            Blocked, match=r"'server' at prompt: chance 0\.90 of 'violence', thresh"
        ):
            guard.check_text("blood", "prompt")
        passages = (Passage(id="p", text="blood", score=1), Passage(id="q", text="ink", score=1))
        assert [each.id for each in guard.screened(Context(passages=passages)).passages] == ["q"]
        reasons = guard.refusals([IMAGES[0], bright, IMAGES[1]])
    assert reasons == ["", "guard 'server' at output: chance 0.90, threshold 0.5", ""]
    assert {call.path for call in server.calls} == {"/v1/moderations"}
    assert {call.headers["Authorization"] for call in server.calls} == {f"Bearer {KEY}"}
    assert {call.body["model"] for call in server.calls} == {"omni-moderation-latest"}
    assert meter.device["guard"] > 0


def test_an_image_is_sent_whole_and_shrunk_in_its_proportions() -> None:
    large = np.tile(IMAGES[0], (2 * SENT_SIDE // 8, SENT_SIDE // 8, 1))
    with chat_server(by_word) as server:
        guards(server, at_once=1).refusals([IMAGES[0], large])
    sent = [decode(image_in(call)) for call in server.calls]
    assert np.abs(sent[0] - IMAGES[0]).max() <= 0.51 / 255
    assert sent[1].shape == (SENT_SIDE, SENT_SIDE // 2, 3)
    assert "model" not in server.calls[0].body


def test_only_the_categories_of_the_profile_count() -> None:
    answer = scores({"violence": 0.9, "sexual": 0.2}, {"violence": 0.1, "sexual": 0.4})
    with chat_server(lambda _: answer) as server:
        guards(server, categories=("sexual",)).check_text("any", "prompt")
        with pytest.raises(Blocked, match=r"chance 0\.40 of 'sexual', threshold 0.3"):
            guards(server, categories=("sexual",), threshold=0.3).check_text("any", "prompt")
        with pytest.raises(Refused, match="no category 'gore'; it has: 'violence', 'sexual'"):
            guards(server, categories=("sexual", "gore")).check_text("any", "prompt")


def test_a_long_name_of_a_category_is_cut_to_one_line() -> None:
    with chat_server(lambda _: scores({"a\nb " + "x" * 500_000: 0.9})) as server:
        check = Moderation(Settings(guard_url=server.url), EndpointGuardProfile())
        reason = check.found("any")
    assert "'a b'" in reason
    assert len(reason) < LONGEST + 60


def test_images_behind_one_that_cannot_be_sent_are_not_asked_about() -> None:
    begun = threading.Event()

    def held(call: Call) -> Reply:
        begun.wait(20)
        return by_word(call)

    broken = np.full((8, 8, 3), np.nan, np.float32)
    with chat_server(held) as server:
        check = Moderation(Settings(guard_url=server.url), EndpointGuardProfile(at_once=1))
        with pytest.raises(ValueError, match="not a finite image"):
            check.chances([*IMAGES, *IMAGES, broken])
        begun.set()
        assert check.chances(IMAGES[:1]) == [0.2]  # after all that its one thread has to do
    assert len(server.calls) <= 2


def test_a_text_is_asked_about_once() -> None:
    with chat_server(by_word) as server:
        guard = guards(server)
        for _ in range(3):
            guard.check_text("a red circle", "keywords")
            with pytest.raises(Blocked):
                guard.check_text("blood", "prompt")
    assert len(server.calls) == 2


def in_turn(*replies: Reply) -> Callable[[Call], Reply]:
    script: Iterator[Reply] = chain(replies, repeat(replies[-1]))
    return lambda _: next(script)


NO_MODERATION = {
    "nothing": b"",
    "a page": b"<html>",
    "no results": b'{"results": []}',
    "no scores": b'{"results": [{"flagged": false, "category_scores": {}}]}',
    "flags alone": b'{"results": [{"flagged": false}]}',
    "no number": b'{"results": [{"category_scores": {"violence": NaN}}]}',
    "no chance": b'{"results": [{"category_scores": {"violence": -1}}]}',
    "a text": b'{"results": [{"category_scores": {"violence": "low"}}]}',
    "nested": b"[" * 100_000,
    "too much": b'{"results": "' + b"x" * 3_000_000 + b'"}',
}


@pytest.mark.parametrize("body", NO_MODERATION.values(), ids=NO_MODERATION)
def test_an_answer_that_is_no_moderation_blocks(body: bytes) -> None:
    with chat_server(lambda _: Reply(body=body)) as server:
        guard = guards(server)
        with pytest.raises(Blocked, match="'server' at prompt could not decide: JobError"):
            guard.check_text("any", "prompt")
        with pytest.raises(Blocked, match="'server' at output could not decide: JobError"):
            guard.refusals(IMAGES[:1])


def test_a_refused_request_blocks_the_job_or_ends_the_run() -> None:
    too_long = r"could not decide: .*refused \(400\): too long, …"
    with (
        chat_server(lambda _: refusal(400, f"too long, {KEY}")) as server,
        pytest.raises(Blocked, match=too_long),
    ):
        guards(server).check_text("any", "prompt")
    for status in (401, 404):
        with chat_server(in_turn(refusal(status, "no"))) as server, pytest.raises(Refused):
            guards(server).check_text("any", "prompt")


def test_a_server_that_is_busy_is_asked_again_and_then_given_up() -> None:
    with chat_server(in_turn(refusal(503, "busy"), scores({"violence": 0.0}))) as server:
        guards(server).check_text("any", "prompt")
    assert len(server.calls) == 2
    with (
        chat_server(lambda _: refusal(503, "busy")) as server,
        pytest.raises(Unavailable, match="status 503: busy"),
    ):
        guards(server).refusals(IMAGES[:1])
    assert len(server.calls) == ATTEMPTS
    with pytest.raises(Unavailable):  # it is gone
        guards(server).check_text("any", "prompt")


def test_a_slow_answer_is_not_waited_for() -> None:
    slow = Reply(body=scores({"violence": 0.0}).body, drip=0.2)
    with (
        chat_server(lambda _: slow) as server,
        pytest.raises(Unavailable, match=r"no answer within 0\.5 s"),
    ):
        guards(server, timeout=0.5).check_text("any", "prompt")


GUARD = '[[guard]]\nkind = "endpoint"\nname = "server"\n'
BLOODY = '[writer]\nkind = "template"\nprompt_template = "blood on {keywords}"\n'


def run(folder: Path, text: str, server: ChatServer) -> Outcome:
    """One job as a worker gets it, with a guard whose server is this one."""
    path = folder / "mine.toml"
    path.write_text(f'extends = "shapes"\n{text}{GUARD}', encoding="utf-8")
    settings = load_settings(
        home=folder / "home", store=str(folder / "out"), profile=str(path), guard_url=server.url
    )
    profile = settings.chosen_profile.model_dump(mode="json")
    spec, assembly = make_spec(profile=profile, models={}), Assembly(settings)
    assembly.run_folder(spec.run).write_spec(spec)
    try:
        return run_job(make_job(keywords="a red circle", candidates=2), assembly.ports(spec))
    finally:
        assembly.close()


def test_a_job_is_guarded_by_a_server_in_all_places(tmp_path: Path) -> None:
    plain = '[writer]\nkind = "template"\n'
    with chat_server(by_word) as server:
        assert run(tmp_path, plain, server).status in (Status.ACCEPTED, Status.BELOW_GATE)
        texts = [call for call in server.calls if isinstance(call.body["input"], str)]
        assert 1 <= len(texts) <= 3
        assert len(server.calls) - len(texts) == 2
    (tmp_path / "bloody").mkdir()
    with chat_server(by_word) as server:
        outcome = run(tmp_path / "bloody", BLOODY, server)
    assert (outcome.status, outcome.image) == (Status.BLOCKED, None)
    assert outcome.reason.startswith("guard 'server' at prompt: chance 0.90 of 'violence'")


def test_a_job_whose_guard_does_not_answer_is_done_again(tmp_path: Path) -> None:
    with chat_server(lambda _: refusal(503, "busy")) as server, pytest.raises(Unavailable):
        run(tmp_path, '[writer]\nkind = "template"\n', server)
    assert not [*(tmp_path / "out" / "runs").glob("*/records/*")]


def test_a_closed_guard_asks_nobody() -> None:
    with chat_server(by_word) as server:
        guard = guards(server)
        guard.close()
        with pytest.raises(Blocked, match="could not decide: RuntimeError"):
            guard.refusals(IMAGES[:1])
        with pytest.raises(Blocked, match="could not decide: RuntimeError"):
            guard.check_text("any", "prompt")
    assert server.calls == []
