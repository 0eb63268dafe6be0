"""What becomes of a message whose services fail, with Celery executing it on the spot."""

from dataclasses import asdict, dataclass, field
from typing import cast

import pytest
from celery import Celery

from pipeline.errors import PressrunError, StoreError, Unavailable
from workers import tasks
from workers.app import TASK, make_app
from workers.queue import Message
from workers.runtime import Runtime

MESSAGE = Message(run="r", edition="e", part=1, job="j")


@dataclass
class Failing:
    """A runtime that fails some times before it succeeds."""

    failures: list[PressrunError]
    executed: list[Message] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)

    def execute(self, message: Message) -> None:
        self.executed.append(message)
        if self.failures:
            raise self.failures.pop(0)

    def give_up(self, message: Message, reason: str) -> None:
        self.given_up.append(reason)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Celery:
    """An application that executes its tasks at once and waits for nothing."""
    monkeypatch.setattr(tasks, "_wait", lambda retries: 0.0)
    app = make_app("redis://unused/0")
    app.conf.task_always_eager = True
    return app


def send(app: Celery, runtime: Failing) -> None:
    tasks.register(app, cast(Runtime, runtime))
    app.tasks[TASK].apply(kwargs=asdict(MESSAGE))


@pytest.mark.parametrize("error", [Unavailable("gone"), StoreError("500")])
def test_a_service_that_fails_for_a_while_costs_tries_and_no_job(
    app: Celery, error: PressrunError
) -> None:
    runtime = Failing([error, error])
    send(app, runtime)
    assert runtime.executed == [MESSAGE] * 3
    assert not runtime.given_up


def test_after_the_last_try_the_job_is_given_up_with_the_reason(app: Celery) -> None:
    runtime = Failing([Unavailable("gone")] * 10)
    send(app, runtime)
    assert len(runtime.executed) == tasks.TRIES
    assert len(runtime.given_up) == 1
    assert "gone" in runtime.given_up[0]


def test_the_waits_grow_and_stay_bounded() -> None:
    assert all(tasks._wait(0) <= 1.5 for _ in range(100))
    assert max(tasks._wait(20) for _ in range(200)) <= tasks.LONGEST_WAIT
    assert max(tasks._wait(5) for _ in range(200)) > 10
