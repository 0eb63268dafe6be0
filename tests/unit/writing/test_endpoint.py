"""How the endpoint's writer takes what servers do."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from itertools import chain, repeat

import pytest
from pydantic import SecretStr
from tenacity import Retrying

from pipeline import http
from pipeline.errors import ConfigError, JobError, Refused, Unavailable
from pipeline.http import ATTEMPTS, LONGEST_WAIT
from pipeline.job import Brief, Context, Job
from pipeline.profile import EndpointWriterProfile
from pipeline.telemetry import metered
from pipeline.writing.endpoint import EndpointWriter
from tests.harness.chat_server import Call, ChatServer, Reply, chat_server, completion, refusal

MakeJob = Callable[..., Job]

KEY = "sk-canary-5e1f"
GOOD = completion(json.dumps({"text": "A circle.", "prompt": "a white circle on teal"}))


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)


def in_turn(*replies: Reply) -> Callable[[Call], Reply]:
    """The replies one after the other, the last one for ever."""
    script: Iterator[Reply] = chain(replies, repeat(replies[-1]))
    return lambda _: next(script)


def raw(status: int = 200, **body: object) -> Reply:
    return Reply(status, json.dumps(body).encode())


def write(server: ChatServer, job: Job, **fields: object) -> Brief:
    return writer(server.url, **fields).write(job, Context())


def writer(url: str, **fields: object) -> EndpointWriter:
    profile = EndpointWriterProfile.model_validate({"model": "chat"} | fields)
    return EndpointWriter(profile, url, SecretStr(KEY))


def test_asks_for_a_schema_with_the_key_in_the_headers(make_job: MakeJob) -> None:
    with chat_server(in_turn(GOOD)) as server, metered() as meter:
        brief = write(server, make_job(), max_tokens=99)
    assert (brief.text, brief.prompt) == ("A circle.", "a white circle on teal")
    call = server.calls[0]
    assert call.path == "/v1/chat/completions"
    assert call.headers["Authorization"] == f"Bearer {KEY}"
    assert call.headers["api-key"] == KEY
    assert (call.body["model"], call.body["max_tokens"]) == ("chat", 99)
    schema = call.body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["text", "prompt"]
    assert not schema["additionalProperties"]
    assert "seed" not in call.body
    assert meter.device["writer"] > 0


def test_only_the_prompt_is_asked_for_where_the_text_is_given(make_job: MakeJob) -> None:
    with chat_server(in_turn(completion('{"prompt": "a circle"}'))) as server:
        brief = write(server, make_job(mode="keywords"))
    schema = server.calls[0].body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["prompt"]
    assert (brief.text, brief.prompt) == ("Viora logo", "a circle")


def test_draws_from_the_jobs_seed(make_job: MakeJob) -> None:
    with chat_server(in_turn(GOOD)) as server:
        write(server, make_job(seed=41), temperature=0.7)
    assert (server.calls[0].body["seed"], server.calls[0].body["temperature"]) == (41, 0.7)


def test_the_query_of_the_address_stays(make_job: MakeJob) -> None:
    with chat_server(in_turn(GOOD)) as server:
        writer(server.url + "/deployments/x/?api-version=1").write(make_job(), Context())
    assert server.calls[0].path == "/v1/deployments/x/chat/completions?api-version=1"


@pytest.mark.parametrize("status", [500, 502, 503, 408, 425, 429])
def test_tries_again_while_a_server_is_in_trouble(make_job: MakeJob, status: int) -> None:
    with chat_server(in_turn(Reply(status), Reply(status), GOOD)) as server:
        assert write(server, make_job()).prompt == "a white circle on teal"
    assert len(server.calls) == 3


def test_a_server_that_stays_in_trouble_is_unavailable(make_job: MakeJob) -> None:
    down = pytest.raises(Unavailable, match="status 503")
    with chat_server(in_turn(Reply(503))) as server, down:
        write(server, make_job())
    assert len(server.calls) == ATTEMPTS


def test_a_server_that_is_not_there_is_unavailable(make_job: MakeJob) -> None:
    with chat_server(in_turn(GOOD)) as server:
        pass
    with pytest.raises(Unavailable, match="chat/completions") as error:
        write(server, make_job())
    assert KEY not in str(error.value)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited between tries."""
    waited: list[float] = []
    monkeypatch.setattr(http, "Retrying", partial(Retrying, sleep=waited.append))
    return waited


def busy(retry_after: str) -> Reply:
    return Reply(429, headers={"retry-after": retry_after})


def test_a_servers_retry_after_is_followed_up_to_a_limit(
    make_job: MakeJob, waits: list[float]
) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=3000), usegmt=True)
    with chat_server(in_turn(busy("7"), busy("86400"), busy(later), GOOD)) as server:
        write(server, make_job())
    assert waits == [7, LONGEST_WAIT, LONGEST_WAIT]


@pytest.mark.parametrize("when", ["soon", "-3", "Wed, 99 Nov", "", "9" * 400])
def test_a_senseless_retry_after_is_replaced_by_our_own_wait(
    make_job: MakeJob, waits: list[float], when: str
) -> None:
    with chat_server(in_turn(busy(when), GOOD)) as server:
        write(server, make_job())
    assert 0 < waits[0] <= LONGEST_WAIT


def test_the_waits_between_tries_grow(make_job: MakeJob, waits: list[float]) -> None:
    with chat_server(in_turn(Reply(500))) as server, pytest.raises(Unavailable):
        write(server, make_job())
    assert waits[0] < 0.021 < 0.04 <= waits[2]


@pytest.mark.parametrize("drip", [0.05, 30.0])
def test_a_slow_answer_is_given_up_once(make_job: MakeJob, drip: float) -> None:
    slow = Reply(body=GOOD.body, drip=drip)
    with chat_server(in_turn(slow)) as server:
        with pytest.raises(Unavailable, match=r"no answer within 0\.3 s"):
            write(server, make_job(), timeout=0.3)
        assert len(server.calls) == 1


def test_an_endless_answer_is_given_up(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.endpoint.LARGEST_ANSWER", 1000)
    too_large = pytest.raises(JobError, match="more than 1000 bytes")
    with chat_server(in_turn(Reply(body=b"x" * 5000))) as server, too_large:
        write(server, make_job())


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(body=b"<html>hello</html>"), "something else than a chat completion"),
        (Reply(body=b'{"choices": []}'), "without any choices"),
        (completion('{"prompt": "a cat", "n": ' + "1" * 5000 + "}"), "no prompt"),
        (Reply(body=GOOD.body, headers={"content-encoding": "gzip"}), "packed as 'gzip'"),
        (Reply(413, b'{"error": ' + b"1" * 5000 + b"}"), "refused (413)"),
        (refusal(403, "flagged by moderation"), "refused (403): flagged"),
        (Reply(body=b"\xff\xfe"), "something else than a chat completion"),
        (completion(None, refusal="I will not."), "wrote nothing: I will not"),
        (completion(""), "an empty reply"),
        (completion("I'm sorry, I can't help with that."), "no prompt"),
        (completion('{"text": "A cir', finish_reason="length"), "raise max_tokens"),
    ],
)
def test_what_no_other_try_would_change_fails_the_job(
    make_job: MakeJob, reply: Reply, said: str
) -> None:
    with chat_server(in_turn(reply)) as server, pytest.raises(JobError) as error:
        write(server, make_job())
    assert said in str(error.value)
    assert KEY not in str(error.value)
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (refusal(401, f"Incorrect API key provided: {KEY}."), "refused (401): Incorrect API key"),
        (refusal(402, "Insufficient credits"), "refused (402): Insufficient credits"),
        (refusal(404, "no model 'chat'"), "refused (404): no model 'chat'"),
        (Reply(403, b"plain\nwords"), "refused (403): plain words"),
        (raw(error={"message": "No key", "code": 401}), "refused (401): No key"),
        (
            raw(429, error={"message": "You exceeded your quota", "code": "insufficient_quota"}),
            "refused (429): You exceeded your quota",
        ),
        (
            Reply(308, headers={"location": "http://other.example/"}),
            "refused (308): it is at http://other.example/; correct PRESSRUN_WRITER_URL",
        ),
    ],
)
def test_what_every_job_would_be_told_ends_the_run(
    make_job: MakeJob, reply: Reply, said: str
) -> None:
    with chat_server(in_turn(reply)) as server, pytest.raises(Refused) as error:
        write(server, make_job())
    assert said in str(error.value)
    assert KEY not in str(error.value)
    assert len(server.calls) == 1


def test_an_error_that_comes_as_a_success_is_tried_again(make_job: MakeJob) -> None:
    trouble = raw(error={"message": "Provider returned error: overloaded"})
    with chat_server(in_turn(trouble, GOOD)) as server:
        assert write(server, make_job()).prompt == "a white circle on teal"
    with chat_server(in_turn(trouble)) as server, pytest.raises(Unavailable, match="overloaded"):
        write(server, make_job())


def test_content_in_parts_is_joined(make_job: MakeJob) -> None:
    parts = [
        {"type": "text", "text": '{"text": "A.", "pro'},
        {"type": "text", "text": 'mpt": "b"}'},
    ]
    with chat_server(in_turn(raw(choices=[{"message": {"content": parts}}]))) as server:
        assert write(server, make_job()).prompt == "b"


def test_checks_are_asked_for_and_read(make_job: MakeJob) -> None:
    check = {"kind": "count", "question": "Is there one circle?"}
    reply = {"text": "A circle.", "prompt": "a white circle on teal", "checks": [check]}
    with chat_server(in_turn(completion(json.dumps(reply)))) as server:
        brief = write(server, make_job(), checks=4)
    assert [each.model_dump() for each in brief.checks] == [check]
    body = server.calls[0].body
    assert "at most 4 short questions" in body["messages"][0]["content"]
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["text", "prompt", "checks"]
    asked = schema["$defs"]["_Check"]
    assert (asked["required"], asked["additionalProperties"]) == (["kind", "question"], False)


def test_a_server_without_schemas_is_asked_plainly_from_then_on(make_job: MakeJob) -> None:
    def answer(call: Call) -> Reply:
        if "response_format" in call.body:
            return refusal(400, "'response_format.type' must be 'text'")
        return completion("text: A circle.\nprompt: a white circle on teal")

    with chat_server(answer) as server:
        endpoint = writer(server.url)
        briefs = [endpoint.write(make_job(), Context()) for _ in range(2)]
    assert [brief.prompt for brief in briefs] == ["a white circle on teal"] * 2
    assert ["response_format" in call.body for call in server.calls] == [True, False, False]
    assert "`text: …`" in server.calls[-1].body["messages"][0]["content"]


def test_a_server_with_newer_manners_is_understood(make_job: MakeJob) -> None:
    def answer(call: Call) -> Reply:
        if "max_tokens" in call.body:
            return refusal(400, "Unsupported: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "temperature" in call.body:
            return refusal(400, "'temperature' does not support 0.0 with this model.")
        return GOOD

    with chat_server(answer) as server:
        write(server, make_job(), max_tokens=77)
    last = server.calls[-1].body
    assert last["max_completion_tokens"] == 77
    assert "response_format" in last


def test_one_refused_prompt_leaves_the_manners_as_they_are(make_job: MakeJob) -> None:
    refused = refusal(400, "The prompt triggered the content filter.")
    with chat_server(in_turn(refused, refused, GOOD)) as server:
        endpoint = writer(server.url)
        with pytest.raises(JobError, match="content filter"):
            endpoint.write(make_job(), Context())
        endpoint.write(make_job(), Context())
    assert "response_format" in server.calls[-1].body


@pytest.mark.parametrize("url", ["", "localhost:1234/v1", "ftp://host/v1", "http://"])
def test_an_address_that_is_none_is_told_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="PRESSRUN_WRITER_URL"):
        writer(url)


def test_a_reply_that_was_cut_off_behind_its_prompt_is_told(make_job: MakeJob) -> None:
    choice = {"message": {"content": "prompt: a white circle on"}, "finish_reason": "length"}
    with chat_server(in_turn(raw(choices=[choice]))) as server, metered() as meter:
        assert write(server, make_job()).prompt == "a white circle on"
    assert meter.notices == ["the writer's reply was cut off at max_tokens"]
