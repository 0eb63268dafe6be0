"""No secret is in what people read or what is kept, whatever its shape."""

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import structlog

from flows.stack.doctor import examine
from pipeline.assemble.knowledge import open_knowledge
from pipeline.errors import ConfigError, JobError, PressrunError
from pipeline.job import Context
from pipeline.judging.questions_endpoint import (
    QuestionsEndpointJudge,
    QuestionsEndpointJudgeProfile,
)
from pipeline.masking import mask
from pipeline.profile import EndpointWriterProfile
from pipeline.settings import Settings, load_settings
from pipeline.writing.endpoint import EndpointWriter
from tests.harness.canaries import KEYS, OTHERS, SIGNS, URLS, canary, leaked
from tests.harness.echo_server import refusing_redis, refusing_web
from tests.harness.jobs import make_job, request_of
from workers.observability.logs import start_logs
from workers.queue.messages import Message, Queue

SCHEMES = {"redis_url": "redis", "broker_url": "amqp"}
each_shape = pytest.mark.parametrize("shape", SIGNS)


def planted(shape: str, web: int = 9, redis: int = 9) -> tuple[dict[str, str], list[str]]:
    """Settings with a secret in each that takes one, and the secrets."""
    signs = SIGNS[shape]
    keys = {name: canary(name, signs) for name in KEYS}
    users = {name: canary(name, signs) for name in URLS}
    hook = canary("webhook") + canary("its end")
    settings = {name: f"{value}\n" for name, value in keys.items()}
    settings["a1111_auth"] = f"user:{keys['a1111_auth']}"
    for name, password in users.items():
        port = redis if name == "redis_url" else web
        port = 9 if name == "broker_url" else port
        scheme = SCHEMES.get(name, "http")
        settings[name] = f"{scheme}://user:{quote(password, safe='')}@127.0.0.1:{port}"
    settings["webhook"] = f"http://127.0.0.1:{web}/hooks/{hook}"
    return settings, [*keys.values(), *users.values(), hook]


def test_every_secret_of_the_settings_is_planted() -> None:
    settings, secrets = planted("plain")
    assert {
        "qdrant_api_key",
        "writer_api_key",
        "judge_api_key",
        "guard_api_key",
        "a1111_auth",
        "webhook_secret",
    } <= set(KEYS)
    assert {"redis_url", "broker_url", "qdrant_url", "s3_endpoint_url"} <= set(URLS)
    loaded = load_settings(**settings)
    assert leaked(secrets, json.dumps({k: str(v) for k, v in settings.items()}))
    assert not leaked(secrets, repr(loaded))
    assert not leaked(secrets, str(loaded))
    assert not leaked(secrets, f"{loaded}")


def ways(secret: str) -> Iterator[str]:
    """The forms in which libraries write a secret."""
    yield from (secret, f"{secret}\n", quote(secret), quote(secret, safe=""))
    yield from (repr(secret), repr(f"Bearer {secret}\n".encode()), json.dumps({"key": secret}))
    yield from (f"http://user:{secret}@host/", f"https://{secret}@host", f"amqp://:{secret}@h//")
    yield repr(httpx.BasicAuth("user", secret)._auth_header)


@each_shape
def test_no_form_of_a_secret_is_in_a_message_a_log_or_a_traceback(
    shape: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, secrets = planted(shape)
    for name in OTHERS:
        secret = canary(name, SIGNS[shape])
        secrets.append(secret)
        form = {"OTEL_EXPORTER_OTLP_HEADERS": f"api-key={quote(secret)},b=c"}.get(name, secret)
        monkeypatch.setenv(name, f"user:{form}" if "AUTH" in name else form)
    start_logs(load_settings(**settings, log_format="json"), libraries=True)
    for secret in secrets:
        for said in ways(secret):
            assert not leaked([secret], mask(f"it is {said} here"))
            assert not leaked([secret], str(JobError(said)))
            assert not leaked([secret], JobError(said).detail)
            structlog.get_logger().error("failed", reason=said, deep=[{"in": said}])
            logging.getLogger("library").error("%s", said, exc_info=ValueError(said))
    assert not leaked(secrets, capsys.readouterr().err)


@each_shape
@pytest.mark.parametrize("scheme", ["redis", "amqp", "http", "postgresql+asyncpg", "socks5h"])
def test_the_user_of_any_address_is_struck_out(shape: str, scheme: str) -> None:
    secret = canary("nobody's", SIGNS[shape].replace(" ", "").replace("'", "").replace('"', ""))
    for address in (f"{scheme}://user:{secret}@host:1/0", f"{scheme}://:{secret}@host"):
        said = mask(f"cannot reach {address}: no answer; see a@b.example")
        assert not leaked([secret], said)
        assert "no answer; see a@b.example" in said
        assert "@host" in said


def test_words_that_only_resemble_a_secret_are_not_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    load_settings(redis_url="redis://:demo@127.0.0.1/0")
    for said in (
        "/home/test/out/test-1/runs/demo/gallery/index.html",
        "https://host/a/@scope?page=2", "http://host:8000/v1", "mail a@b.example", "12:30 @ home",
    ):  # fmt: skip
        assert mask(said) == said
    assert mask("the key is test") == "the key is ***"
    assert mask("http://h/?api_key=12345&n=1") == "http://h/?api_key=***&n=1"


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("sign", "/#?@")
def test_an_address_that_its_password_breaks_is_a_clear_error(name: str, sign: str) -> None:
    secret = canary(name, f"{sign}@")
    address = f"{SCHEMES.get(name, 'http')}://user:{secret}@host:1/0"
    if sign == "@":  # urllib finds the host all the same
        said = mask(getattr(load_settings(**{name: address}), name))
        assert "@host" in said
    else:
        with pytest.raises(ConfigError, match=rf"PRESSRUN_{name.upper()}: .*%40") as caught:
            load_settings(**{name: address})
        said = "".join(traceback.format_exception(caught.value))
    assert not leaked([secret], said)


@pytest.mark.parametrize("name", KEYS)
def test_a_secret_is_stripped_and_holds_no_control_character(name: str) -> None:
    secret = canary(name)
    loaded = load_settings(**{name: f" {secret}\r\n"})
    assert getattr(loaded, name).get_secret_value() == secret
    with pytest.raises(ConfigError, match=f"PRESSRUN_{name.upper()}") as caught:
        load_settings(**{name: f"{secret}\nX-Other: {secret}"})
    assert not leaked([secret], "".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("name", [name for name in KEYS if name.endswith("_api_key")])
def test_a_key_that_no_header_carries_is_a_clear_error(name: str) -> None:
    secret = canary(name)
    with pytest.raises(ConfigError, match=f"PRESSRUN_{name.upper()}.*header") as caught:
        load_settings(**{name: f"{secret}\u2013{secret}"})
    assert not leaked([secret], str(caught.value))


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Iterator[tuple[Settings, list[str]]]:
    """Settings of services that all refuse and repeat what they were sent."""
    with refusing_web() as web, refusing_redis() as redis:
        given, secrets = planted("for a header", web, redis)
        yield load_settings(**given, store="s3://bucket"), secrets


def test_doctor_shows_no_secret(settings: tuple[Settings, list[str]]) -> None:
    loaded, secrets = settings
    said = json.dumps(examine(loaded))
    assert said.count("PROBLEM") >= 3
    assert "AUTH $4 user" in said
    assert not leaked(secrets, said)


def publish(settings: Settings) -> None:
    """Send a job to a broker that is away."""
    Queue(settings.redis_url, settings.broker_url).publish([Message("r", "e", 1, "j")])


def look(settings: Settings) -> None:
    """Ask a Redis that refuses."""
    Queue(settings.redis_url).events("r", "0", 0.1)


def write(settings: Settings) -> None:
    """Ask a chat server that refuses."""
    profile = EndpointWriterProfile(model="m")
    writer = EndpointWriter(profile, settings.writer_url, settings.writer_api_key)
    job = make_job(mode="generated")
    writer.write(job, Context())


def judge(settings: Settings) -> None:
    """Ask a server that is to see images and refuses."""
    profile = QuestionsEndpointJudgeProfile(model="m")
    image = np.random.default_rng(0).random((8, 8, 3), dtype=np.float32)
    QuestionsEndpointJudge(settings, profile).score([image], request_of("a red circle"))


@pytest.mark.parametrize("use", [publish, look, write, judge])
def test_a_service_that_repeats_a_secret_has_it_struck_out(
    use: Callable[[Settings], None], settings: tuple[Settings, list[str]]
) -> None:
    loaded, secrets = settings
    with pytest.raises(PressrunError) as caught:
        use(loaded)
    assert not leaked(secrets, str(caught.value))


def test_another_server_in_qdrants_place_is_a_clear_error() -> None:
    with refusing_web(404) as port:
        settings = load_settings(qdrant_url=f"http://user:canary@127.0.0.1:{port}")
        with pytest.raises(ConfigError, match=r"PRESSRUN_QDRANT_URL.*404") as caught:
            open_knowledge(settings)
    assert "canary" not in str(caught.value)
