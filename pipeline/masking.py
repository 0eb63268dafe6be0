"""Masking of secrets in everything that is shown or stored: messages, logs, records.

The secrets come from the settings and from other programs' environment variables, in each form
that libraries write them in. The user and the password of any URL are masked too, known or not.
"""

import base64
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

SHORTEST = 4
"""Least length of a secret: masking shorter ones would spoil the words around them."""
SHORT = 8
"""Below this length, a secret is masked as a whole word only: `test` is also a part of paths."""
SHORTEST_PIECE = 6
LONG_WORD = 16
"""Least length of a part of an address that is taken for a token."""
LONGEST_USER = 512
HIDDEN = "***"

VARIABLES = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY",
    "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_DATABASE_PASSWORD",
)  # fmt: skip
ADDRESSES = (
    "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "OTEL_EXPORTER_OTLP_ENDPOINT", "PREFECT_API_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL", "all_proxy",
    "http_proxy", "https_proxy",
)  # fmt: skip

# Passwords that should have been encoded hold "/", "#" or "@": with a colon before them, all up to
# the last "@" of the word is taken.
_USER = re.compile(
    rf"""(?<=://)(?:[^\s/?#"'<>@:]{{0,{LONGEST_USER}}}:[^\s"'<>]{{0,{LONGEST_USER}}}"""
    rf"""|[^\s/?#"'<>]{{0,{LONGEST_USER}}})@"""
)
_QUERY = re.compile(
    r"([?&][^=&\s]{0,40}(?:auth|code|key|passw|secret|sig|token)[^=&\s]{0,40}=)[^&\s\"']{1,2048}",
    re.IGNORECASE,
)
_BASIC = re.compile(r"(?<=Basic )[A-Za-z0-9+/]{4,2048}={0,2}")
_forms = frozenset[str]()
_NOTHING = re.compile("(?!x)x")
_secrets = _NOTHING


def mask(text: str) -> str:
    """The text with secrets replaced by `HIDDEN`."""
    text = _USER.sub(f"{HIDDEN}@", _secrets.sub(HIDDEN, text))
    return _BASIC.sub(_credentials, _QUERY.sub(rf"\1{HIDDEN}", text))


def remember(secrets: Iterable[str]) -> None:
    """Mask these too from now on, also in libraries' logs and in tracebacks."""
    global _forms, _secrets
    known = _forms.union(*map(_written, secrets))
    if known != _forms:
        # the longest first: one may hold another
        ordered = sorted(known, key=lambda form: (-len(form), form))
        _forms = known
        bounds = ("", ""), (r"(?<![\w./-])", r"(?![\w./-])")
        _secrets = re.compile(
            "|".join(re.escape(form).join(bounds[len(form) < SHORT]) for form in ordered)
        )
    logging.setLogRecordFactory(_Record)
    sys.excepthook = _show
    threading.excepthook = lambda args: _show(args.exc_type, args.exc_value, args.exc_traceback)


def forget() -> None:
    """Forget all secrets."""
    global _forms, _secrets
    _forms, _secrets = frozenset(), _NOTHING


def secrets_in(environment: Mapping[str, str]) -> Iterator[str]:
    """The secrets that other programs' variables hold."""
    for name in VARIABLES:
        yield from secrets_of(environment.get(name, ""))
    for name in ADDRESSES:
        yield from secrets_of_url(environment.get(name, ""))


def secrets_of(value: str) -> Iterator[str]:
    """A secret and its sensitive parts: the password of `user:password`, the parts of an address,
    the values of headers such as `key=value,key=value`.
    """
    yield value
    if "://" in value:
        yield from secrets_of_url(value)
        # of an address that is a secret as a whole, also the long parts
        try:
            parts = urlsplit(value)
        except ValueError:
            return
        yield f"{parts.path}?{parts.query}" if parts.query else parts.path
        found = [word for _, word in parse_qsl(parts.query)] + parts.path.split("/")
        yield from (word for word in found if len(word) >= LONG_WORD)
        return
    yield value.partition(":")[2]
    for header in value.split(","):
        yield unquote(header.partition("=")[2])


def secrets_of_url(url: str) -> Iterator[str]:
    """The password of a URL, the pieces of one that is not encoded, and secret query values."""
    user, at, _ = url.partition("://")[2].rpartition("@")
    name, colon, password = user.partition(":")
    if at and colon:
        yield from (password, user, f"{unquote(name)}:{unquote(password)}")
        pieces = re.split("[/#?@:]", password)
        yield from (piece for piece in pieces if len(piece) >= SHORTEST_PIECE)
    elif at and "/" not in user:
        yield user
    for match in _QUERY.finditer(url):
        yield match[0][len(match[1]) :]


def _credentials(word: "re.Match[str]") -> str:
    """`HIDDEN` for the base64 of `user:password`; any other word unchanged."""
    try:
        return HIDDEN if b":" in base64.b64decode(word[0]) else word[0]
    except ValueError:
        return word[0]


def _written(secret: str) -> Iterator[str]:
    """The encodings of a secret, each also as JSON quotes it."""
    bare = secret.strip()
    for plain in {bare, unquote(bare)}:
        data = plain.encode(errors="surrogatepass")
        coded = [base64.b64encode(data), base64.urlsafe_b64encode(data)]
        written = (
            plain, json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1],
            repr(plain)[1:-1], repr(data)[2:-1], quote(data, safe=""), quote(data),
            quote_plus(data), *(code.decode().rstrip("=") for code in coded),
        )  # fmt: skip
        for form in written if len(plain) >= SHORTEST else ():
            yield from (form, json.dumps(form)[1:-1])


def _show(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """Print the masked traceback of an uncaught exception."""
    sys.stderr.write(mask("".join(traceback.format_exception(kind, error, trace))))


class _Record(logging.LogRecord):
    """A log record with masked message and traceback, for every handler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[0]:
            self.exc_text = mask("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"))

    def getMessage(self) -> str:  # noqa: N802 - the base class's name
        return mask(super().getMessage())
