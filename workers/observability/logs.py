"""Logs of a process: one line per event on standard error, as JSON or for a terminal.

A line names the run and the job of its thread, and the trace if there is one. Secrets of the
settings, and any password in a URL, are masked in every line as it is written.
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
    """Log from now on as the settings say; with `libraries` also the standard library's loggers, in
    the same form. A flow leaves them to Prefect.
    """
    on_terminal = sys.stderr.isatty()
    added: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    rendering: list[Processor]
    if (settings.log_format or ("console" if on_terminal else "json")) == "console":
        # the other formatters show variables, and so secrets
        plain = structlog.dev.plain_traceback
        rendering = [structlog.dev.ConsoleRenderer(colors=on_terminal, exception_formatter=plain)]
    else:
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    rendering.append(lambda _logger, _method, line: mask(str(line)))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*added, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # standard error as it is when a line is written: a progress bar may have taken its place
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )
    if libraries:
        handler = logging.StreamHandler()
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[*added, structlog.stdlib.add_logger_name],
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            )
        )
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(max(level, logging.WARNING))
        logging.captureWarnings(True)


def _add_trace(_logger: Any, _method: str, event: EventDict) -> EventDict:
    span = trace.get_current_span().get_span_context()
    if span.trace_flags.sampled:
        event["trace_id"] = format(span.trace_id, "032x")
    return event
