"""What a process logs: one line for each event on standard error, JSON or for a terminal.

A line has the run and the job that its thread works on, and the trace where there is one. What is
secret in the settings, and any password in a URL, is struck out of every line as it is written.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import structlog
from opentelemetry import trace
from pydantic import SecretStr
from structlog.typing import EventDict, Processor

from pipeline.settings import Settings

SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OTEL_EXPORTER_OTLP_HEADERS", "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
)  # fmt: skip
SHORTEST = 4
"""Characters of a secret: to strike out shorter ones would spoil the words around them."""

_PASSWORD = re.compile(r"(\w://[^\s/:@\"']*:)[^\s/@\"']+(?=@)")


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
    ends: list[Processor] = [*_renderers(shown, colors=on_terminal), Censor(secrets_of(settings))]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*added, *ends],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # standard error as it is when a line is written: a progress bar may have taken its place
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )
    if libraries:
        _gather(logging.getLogger(), [*added, structlog.stdlib.add_logger_name], ends, level)


class Censor:
    """The last step of every line: strikes secrets out, plain and as JSON or a URL has them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # the longest first: one may hold another
        ordered = sorted(forms, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")

    def __call__(self, _logger: Any, _method: str, line: Any) -> str:
        """The line without them."""
        return _PASSWORD.sub(r"\1***", self._secrets.sub("***", str(line)))


def secrets_of(settings: Settings) -> Iterator[str]:
    """Every secret that this process has been told."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            yield secret
            yield secret.partition(":")[2]  # user:password
        elif isinstance(value, str) and "://" in value:
            yield unquote(urlsplit(value).password or "")
    for name in SECRET_VARIABLES:
        yield os.environ.get(name, "")


def _forms(secret: str) -> Iterator[str]:
    if len(secret) >= SHORTEST:
        yield from (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), repr(secret)[1:-1])


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
