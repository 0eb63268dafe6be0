"""What a process logs: one line for each event on standard error, JSON or for a terminal.

A line has the run and the job that its thread works on, and the trace where there is one. What is
secret in the settings, and any password in a URL, is struck out of every line as it is written.
"""

import logging
import sys
from typing import Any

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor

from pipeline.masking import mask
from pipeline.settings import Settings


def start_logs(settings: Settings, *, libraries: bool = False) -> None:
    """Log from now on as the settings say; with `libraries` what they log too, through the same
    lines. A flow leaves those to Prefect.
    """
    on_terminal = sys.stderr.isatty()
    shown = settings.log_format or ("console" if on_terminal else "json")
    added: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    ends: list[Processor] = [*_renderers(shown, colors=on_terminal), _masked]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*added, *ends],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # standard error as it is when a line is written: a progress bar may have taken its place
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )
    if libraries:
        _gather(logging.getLogger(), [*added, structlog.stdlib.add_logger_name], ends, level)


def _masked(_logger: Any, _method: str, line: Any) -> str:
    """The last step of every line."""
    return mask(str(line))


def _renderers(shown: str, *, colors: bool) -> list[Processor]:
    if shown == "console":
        # no other way of showing a traceback, for those show variables
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _add_trace(_logger: Any, _method: str, event: EventDict) -> EventDict:
    span = trace.get_current_span().get_span_context()
    if span.trace_flags.sampled:
        event["trace_id"] = format(span.trace_id, "032x")
    return event


def _gather(
    root: logging.Logger, added: list[Processor], ends: list[Processor], level: int
) -> None:
    """Have a standard logger's lines look like ours."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=added,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ends],
        )
    )
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
