"""The judge that asks a server about an image, and how it takes what servers do."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from pipeline import http
from pipeline.cancellation import Cancelled, cancellable
from pipeline.errors import ConfigError, JobError, Refused, Unavailable
from pipeline.http import ATTEMPTS
from pipeline.job import Check, ImageArray, JudgeRequest, Score
from pipeline.judging.questions_endpoint import (
    QuestionsEndpointJudge,
    QuestionsEndpointJudgeProfile,
)
from pipeline.media.image import SENT_SIDE, decode
from pipeline.settings import Settings
from pipeline.telemetry import metered
from pipeline.watchdog import seconds_since_beat
from tests.harness.chat_server import (
    Call,
    ChatServer,
    Reply,
    chat_server,
    image_in,
    likeliest,
    question_in,
    refusal,
)
from tests.harness.jobs import request_of

KEY = "sk-canary-5e1f"
CHECKS = JudgeRequest(
    "", "", "", (Check(question="is there a circle ?", kind="object"),
                 Check(question="is it red ?", kind="attribute")),
)  # fmt: skip
IMAGES: list[ImageArray] = list(np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32))
BROKEN: ImageArray = np.full((8, 8, 3), np.nan, np.float32)
GOOD = likeliest({"Yes": 0.75, "No": 0.25})


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)


def judge(url: str, **keys: Any) -> QuestionsEndpointJudge:
    profile = QuestionsEndpointJudgeProfile(model="vlm", **keys)
    return QuestionsEndpointJudge(Settings(judge_url=url, judge_api_key=SecretStr(KEY)), profile)


def score(
    server: ChatServer,
    images: Sequence[ImageArray] = IMAGES[:1],
    request: JudgeRequest | None = None,
    **keys: Any,
) -> Sequence[Score]:
    return judge(server.url, **keys).score(images, request or request_of("a red circle"))


def in_turn(*replies: Reply) -> Callable[[Call], Reply]:
    """The replies one after the other, the last one for ever."""
    script: Iterator[Reply] = chain(replies, repeat(replies[-1]))
    return lambda _: next(script)


def raw(status: int = 200, **body: object) -> Reply:
    return Reply(status, json.dumps(body).encode())


def test_the_score_is_the_geometric_mean_of_the_answers() -> None:
    def answer(call: Call) -> Reply:
        if "circle" in question_in(call):
            return likeliest({"Yes": 0.5, " yes": 0.1, "NO": 0.2, "no\n": 0.05, "Maybe": 0.05})
        return likeliest({"No": 0.6, "Yes": 0.4})

    with chat_server(answer) as server, metered() as meter:
        first, broken, second = score(server, [IMAGES[0], BROKEN, IMAGES[1]], CHECKS)
    assert first == second
    assert first.parts[0].judge == "questions_endpoint"
    assert first.parts[0].answers == pytest.approx([0.6 / 0.85, 0.4])
    assert first.calibrated == pytest.approx(math.sqrt(0.6 / 0.85 * 0.4))
    assert (broken.valid, broken.calibrated) == (False, 0)
    assert len(server.calls) == 4
    assert meter.device["judge"] > 0


def test_one_answer_below_the_floor_decides() -> None:
    with chat_server(in_turn(GOOD, likeliest({"No": 0.9, "Yes": 0.1}))) as server:
        (found,) = score(server, request=CHECKS, floor=0.2, at_once=1)
    assert found.calibrated == pytest.approx(0.1)


def test_one_token_and_its_chances_are_asked_for() -> None:
    with chat_server(in_turn(GOOD)) as server:
        score(server)
    (call,) = server.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["Authorization"] == f"Bearer {KEY}"
    wanted = {"model": "vlm", "max_tokens": 1, "temperature": 0, "logprobs": True}
    assert {key: call.body[key] for key in wanted} == wanted
    assert call.body["top_logprobs"] == 20
    assert question_in(call) == 'Does this image show "a red circle"? Answer with Yes or No.'
    assert np.abs(decode(image_in(call)) - IMAGES[0]).max() <= 0.51 / 255


def test_a_large_image_is_shrunk_in_its_proportions() -> None:
    large = np.tile(IMAGES[0], (2 * SENT_SIDE // 8, SENT_SIDE // 8, 1))
    with chat_server(in_turn(GOOD)) as server:
        score(server, [large])
    assert decode(image_in(server.calls[0])).shape == (SENT_SIDE, SENT_SIDE // 2, 3)


@pytest.mark.parametrize(
    ("chances", "expected"),
    [
        ({"Yes": 0.9, "Sure": 0.04}, 0.9 / 0.94),
        ({"Yes": 0.97, "Sure": 0.02}, 0.97 / 0.98),
        ({"Sure": 0.9, "yes": 1e-5}, 0.5),
        ({"No": 0.9, "Sure": 0.04}, 0.0),
        ({"Yes": 1.0}, 1.0),
    ],
)
def test_an_unseen_no_may_have_what_the_list_leaves_it(
    chances: dict[str, float], expected: float
) -> None:
    with chat_server(in_turn(likeliest(chances))) as server:
        (found,) = score(server)
    assert found.parts[0].answers[0] == pytest.approx(expected)


def test_images_come_in_order_whatever_the_order_of_answers() -> None:
    shades = [0.9, 0.2, 0.6, 0.4]
    images: list[ImageArray] = [image * np.float32(0.1) for image in IMAGES[:1] * 4]
    for image, shade in zip(images, shades, strict=True):
        image += np.float32(shade)
    in_flight, most, lock = 0, 0, threading.Lock()

    def answer(call: Call) -> Reply:
        nonlocal in_flight, most
        with lock:
            in_flight += 1
            most = max(most, in_flight)
        mean = float(decode(image_in(call)).mean())
        time.sleep(0.3 * mean)
        with lock:
            in_flight -= 1
        return likeliest({"Yes": mean, "No": 1 - mean})

    with chat_server(answer) as server:
        found = score(server, images, CHECKS, at_once=3)
    for each, image in zip(found, images, strict=True):
        assert each.raw == pytest.approx(float(image.mean()), abs=0.01)
    assert most == 3


def test_the_watchdog_waits_with_it() -> None:
    seen = list[float]()

    def answer(call: Call) -> Reply:
        time.sleep(0.2)
        seen.append(seconds_since_beat())
        return GOOD

    with chat_server(answer) as server:
        score(server)
    assert seen == [0.0]


@pytest.mark.parametrize("status", [500, 429])
def test_tries_again_while_a_server_is_in_trouble(status: int) -> None:
    with chat_server(in_turn(Reply(status), Reply(status), GOOD)) as server:
        (found,) = score(server)
    assert found.raw == pytest.approx(0.75)
    assert len(server.calls) == 3


def test_a_server_that_stays_in_trouble_is_unavailable() -> None:
    trouble = refusal(500, f"out of memory, {KEY}")
    down = pytest.raises(Unavailable, match="status 500: out of memory")
    with chat_server(in_turn(trouble)) as server, down as error:
        score(server)
    assert len(server.calls) == ATTEMPTS
    assert KEY not in str(error.value)


def test_a_server_that_hangs_is_unavailable() -> None:
    with chat_server(in_turn(Reply(body=GOOD.body, drip=30.0))) as server:
        with pytest.raises(Unavailable, match=r"no answer within 0\.3 s"):
            score(server, timeout=0.3)
        assert len(server.calls) == 1


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with chat_server(in_turn(GOOD)) as server:
        pass
    with pytest.raises(Unavailable, match="chat/completions"):
        score(server)


def test_a_cancelled_job_waits_for_no_answer() -> None:
    cancelled = threading.Event()

    def answer(call: Call) -> Reply:
        cancelled.set()
        return Reply(body=GOOD.body, drip=30.0)

    with chat_server(answer) as server, cancellable(cancelled):
        start = time.monotonic()
        with pytest.raises(Cancelled):
            score(server, IMAGES * 4, timeout=60, at_once=1)
        assert time.monotonic() - start < 25
        assert len(server.calls) == 1


@pytest.mark.parametrize(
    "reply",
    [
        raw(choices=[{"message": {"content": "Yes"}}]),
        raw(choices=[{"message": {"content": "Yes"}, "logprobs": None}]),
        raw(choices=[{"logprobs": {"content": None}}]),
        raw(choices=[{"logprobs": {"content": [{"token": "Yes", "logprob": -0.1}]}}]),
        refusal(400, "Requested sample logprobs of 20, which is greater than max allowed: 5"),
        refusal(400, "Logprobs is disabled, please enable it in startup config."),
        refusal(400, f"'logprobs' is not supported with this model by {KEY}."),
    ],
)
def test_a_server_without_log_probabilities_ends_the_run(reply: Reply) -> None:
    remedy = pytest.raises(Refused, match=r"returns no log-probabilities.*vLLM")
    with chat_server(in_turn(reply)) as server, remedy as error:
        score(server)
    assert KEY not in str(error.value)
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (refusal(401, f"Incorrect API key provided: {KEY}."), "refused (401): Incorrect API key"),
        (refusal(404, "no model 'vlm'"), "the judge's server refused (404): no model 'vlm'"),
        (Reply(308, headers={"location": "http://e.example/"}), "correct PRESSRUN_JUDGE_URL"),
    ],
)
def test_what_every_job_would_be_told_ends_the_run(reply: Reply, said: str) -> None:
    with chat_server(in_turn(reply)) as server, pytest.raises(Refused) as error:
        score(server)
    assert said in str(error.value)
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (likeliest({"The": 0.8, "<think>": 0.1}), "neither yes nor no, but most likely 'The', "),
        (refusal(400, "At most 0 image(s) may be provided"), "refused (400): At most 0 image"),
        (Reply(body=b"<html>"), "something else than a chat completion"),
        (Reply(body=b'{"choices": []}'), "without any choices"),
        (raw(choices=[{"logprobs": {"content": "yes"}}]), "something else than a chat completion"),
    ],
)
def test_what_no_other_try_would_change_fails_the_job(reply: Reply, said: str) -> None:
    with chat_server(in_turn(reply)) as server, pytest.raises(JobError) as error:
        score(server)
    assert said in str(error.value)


def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.endpoint.LARGEST_ANSWER", 1000)
    too_large = pytest.raises(JobError, match=r"the judge's server .* more than 1000 bytes")
    with chat_server(in_turn(Reply(body=b"x" * 5000))) as server, too_large:
        score(server)


@pytest.mark.parametrize("number", ["800", "1e400", "NaN"])
def test_a_log_probability_that_is_none_harms_nothing(number: str) -> None:
    body = GOOD.body.replace(repr(math.log(0.75)).encode(), number.encode())
    with chat_server(in_turn(Reply(body=body))) as server:
        (found,) = score(server)
    if number == "NaN":
        assert (found.valid, found.reason) == (False, "the judge's answer is not a number")
    else:
        assert found.raw == pytest.approx(1 / 1.25)


def test_an_address_that_is_none_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="PRESSRUN_JUDGE_URL"):
        judge("localhost:8000/v1")
