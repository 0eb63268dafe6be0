"""Lines written to standard error."""

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from pipeline.settings import Settings, load_settings
from workers.observability.logs import start_logs

SECRETS = {
    "qdrant_api_key": "canary-of-qdrant",
    "writer_api_key": 'canary "of" the\\writer',
    "judge_api_key": "canary-of-the-judge",
    "guard_api_key": "canary-of-the-guard",
    "a1111_auth": "someone:canary-of-a1111",
    "redis_url": "redis://user:canary%2Fof%2Fredis@127.0.0.1:6379/0",
    "broker_url": "amqp://user:canary-of-rabbit@127.0.0.1//",
}
TOLD = [
    *(value for name, value in SECRETS.items() if not name.endswith("url")),
    "canary-of-a1111", "canary/of/redis", "canary%2Fof%2Fredis", "canary-of-rabbit",
    "canary-of-aws",
    *(value for name, value in SECRETS.items() if name.endswith("url")),
    "http://nobody:canary-of-nobody@elsewhere/", "https://:canary-alone@elsewhere",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def settings(**more: Any) -> Settings:
    return load_settings(**SECRETS, **more)


def failing(secret: str) -> None:
    variable = secret
    raise ValueError(variable)


@pytest.mark.parametrize("shown", ["json", "console"])
def test_no_secret_is_written(
    shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-aws")
    start_logs(settings(log_format=shown), libraries=True)
    for secret in TOLD:
        structlog.get_logger().warning(f"it is {secret}", field=secret, deep={"in": [secret]})
        logging.getLogger("library").warning("library: %s", secret)
        for log in (structlog.get_logger(), logging.getLogger("library")):
            try:
                failing(secret)
            except ValueError:
                log.exception("it failed")
    said = capsys.readouterr().err
    assert said.count("it is") == said.count("library:") == len(TOLD)
    assert said.count("Traceback") == 2 * len(TOLD)
    assert "canary" not in said
    assert "elsewhere" in said


def test_a_line_is_one_object_with_run_and_job(capsys: pytest.CaptureFixture[str]) -> None:
    start_logs(settings(), libraries=True)
    with bound_contextvars(run="spring", job="j1"):
        structlog.get_logger().warning("ours\nof two lines", number=1)
        logging.getLogger("celery").error("theirs")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [(line["event"], line["level"], line["run"], line["job"]) for line in lines]
    assert told == [
        ("ours\nof two lines", "warning", "spring", "j1"), ("theirs", "error", "spring", "j1")
    ]  # fmt: skip
    assert lines[0]["number"] == 1
    assert lines[1]["logger"] == "celery"
    assert lines[0]["timestamp"].endswith("Z")


def test_events_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    for level, written in (("debug", 4), ("info", 3), ("warning", 2), ("error", 1)):
        start_logs(settings(log_level=level))
        log = structlog.get_logger()
        for method in (log.debug, log.info, log.warning, log.error):
            method("said")
        assert capsys.readouterr().err.count("said") == written


def test_a_terminal_gets_no_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    start_logs(settings())
    structlog.get_logger().info("said", number=1)
    assert not capsys.readouterr().err.startswith("{")
