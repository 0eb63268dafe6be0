"""Costs and notices of jobs, and process-wide events for metrics.

A `Meter` belongs to the job in the current thread. An `Observer` belongs to the process; the
pipeline itself exports nothing.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from opentelemetry import trace

from pipeline.job import TokenCount


@dataclass
class Meter:
    """Costs of one job in seconds: `wall` by stage, `device` by model role.

    `renderer` is the one that rendered last, and `tokens` are those of the texts that it read.
    `notices` are unique sentences about truncated texts and settings without effect.
    """

    wall: dict[str, float] = field(default_factory=dict)
    device: dict[str, float] = field(default_factory=dict)
    renderer: str = ""
    tokens: tuple[TokenCount, ...] = ()
    notices: list[str] = field(default_factory=list)


# a no-op unless the process has set up OpenTelemetry's SDK
_tracer = trace.get_tracer("pressrun")
_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Collect the costs of everything done in the block by this thread."""
    meter = Meter()
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Charge the block's wall time to the stage `name`, nested stages excluded, and trace it."""
    meter = _meter.get() or Meter()
    start, before = time.perf_counter(), sum(meter.wall.values())
    try:
        with _tracer.start_as_current_span(name):
            yield
    finally:
        within = sum(meter.wall.values()) - before
        spent = time.perf_counter() - start - within
        meter.wall[name] = meter.wall.get(name, 0.0) + spent


def charge(role: str, seconds: float) -> None:
    """Charge this job's share of a model call to the model's role."""
    if meter := _meter.get():
        meter.device[role] = meter.device.get(role, 0.0) + seconds


def rendered_by(renderer: str) -> None:
    """Set the name of this job's renderer."""
    if meter := _meter.get():
        meter.renderer = renderer


def read_tokens(tokens: Sequence[TokenCount]) -> None:
    """Set the numbers of tokens of this job's texts."""
    if meter := _meter.get():
        meter.tokens = tuple(tokens)


def notice(sentence: str) -> None:
    """Add a sentence to this job's record: a truncation, or a setting without effect."""
    if (meter := _meter.get()) and sentence not in meter.notices:
        meter.notices.append(sentence)


class Observer:
    """Receives events of this process. Methods are called from any thread and must not block.

    This default ignores them.
    """

    def batch(self, role: str, used: int, places: int) -> None:
        """A call of the model in this role had `used` of `places` items."""

    def texts(self, role: str, cached: int, encoded: int) -> None:
        """Text embeddings were needed: `cached` were there, `encoded` were computed."""

    def renderer(self, event: str) -> None:
        """A renderer was `loaded` or `evicted`, or `changed`: another than before has a call."""

    def trouble(self, service: str, kind: str) -> None:
        """A service failed. `kind` has few values: an HTTP status or an error's class."""


_observer = Observer()


def observe(observer: Observer) -> None:
    """Send this process's events to one observer, in place of the one before."""
    global _observer
    _observer = observer


def batch(role: str, used: int, places: int) -> None:
    """Report a batched model call."""
    _observer.batch(role, used, places)


def texts(role: str, cached: int, encoded: int) -> None:
    """Report a look-up of text embeddings."""
    _observer.texts(role, cached, encoded)


def renderer(event: str) -> None:
    """Report a renderer that was loaded, evicted or changed to."""
    _observer.renderer(event)


def trouble(service: str, kind: str) -> None:
    """Report a failure of a service."""
    _observer.trouble(service, kind)
