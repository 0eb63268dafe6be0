"""What a job costs: wall time by stage, its share of each batched model call, and who rendered; and
what was left out of it on the way.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from opentelemetry import trace


@dataclass
class Meter:
    """The running cost of the job in the current thread, in seconds; `renderer` rendered last.
    `notices` are sentences on what was cut or had no effect, each once.
    """

    wall: dict[str, float] = field(default_factory=dict)
    device: dict[str, float] = field(default_factory=dict)
    renderer: str = ""
    notices: list[str] = field(default_factory=list)


# does nothing unless a process has OpenTelemetry's SDK set up
_tracer = trace.get_tracer("pressrun")
_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Collect the costs of everything done inside, in this thread."""
    meter = Meter()
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Charge the wall time spent inside to the stage `name`; that of stages within it is theirs.

    It is a span of the job's trace.
    """
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
    """Note who renders this job's images."""
    if meter := _meter.get():
        meter.renderer = renderer


def notice(sentence: str) -> None:
    """Have the record of this job say what changed its result and stopped nothing."""
    if (meter := _meter.get()) and sentence not in meter.notices:
        meter.notices.append(sentence)
