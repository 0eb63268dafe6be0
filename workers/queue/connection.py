"""Connections to Redis: one address for every client, and a limit to every wait."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis import Redis
from redis.connection import parse_url

from pipeline.errors import ConfigError

ANSWER = 10.0
"""Seconds for an answer, after which a client reconnects."""
OPENING = 5.0
"""Seconds for a connection to open."""

_TAKEN = frozenset({"db", "client_name", "health_check_interval"})
_SHAPE = (
    "is no address such as redis://user:password@host:6379/0, with the number of a database at its"
    " end; in a password / is %2F, # is %23 and @ is %40"
)


@dataclass(frozen=True)
class Address:
    """PRESSRUN_REDIS_URL in a form that redis-py and kombu both take; options are separate."""

    url: str = field(repr=False)
    options: Mapping[str, Any]

    @classmethod
    def of(cls, url: str) -> Self:
        """Parse an address. Raises ConfigError, without the URL: a password may be in it."""
        try:
            parts = urlsplit(url)
            known: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
            _ = parts.port
        except ValueError:
            raise _problem(_SHAPE) from None
        query, unix = dict(parse_qsl(parts.query)), parts.scheme == "unix"
        if any(key not in _TAKEN and not key.startswith("ssl_") for key in query):
            raise _problem(f"has an option besides {', '.join(sorted(_TAKEN))} and ssl_…")
        database = query.get("db") or ("" if unix else parts.path.strip("/")) or "0"
        if parts.fragment or not re.fullmatch(r"[0-9]{1,5}", database):
            raise _problem(_SHAPE)
        path = f"{parts.path}?db={database}" if unix else f"/{database}"
        tls = urlencode({key: text for key, text in query.items() if key.startswith("ssl_")})
        clean = f"{parts.scheme}://{parts.netloc}{path}" + (f"?{tls}" if tls else "")
        return cls(clean, {key: known[key] for key in _TAKEN - {"db"} & known.keys()})

    @property
    def for_kombu(self) -> str:
        """The same address in Celery's form."""
        if not self.url.startswith("unix://"):
            return self.url
        return self.url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=")

    def client(self, answer: float = ANSWER) -> "Redis":
        """A client that waits `answer` seconds, and as long again on a new connection."""
        return Redis.from_url(
            self.url,
            decode_responses=True,
            socket_timeout=answer,
            socket_connect_timeout=min(answer, OPENING),
            retry_on_timeout=True,
            **self.options,
        )


def _problem(text: str) -> ConfigError:
    return ConfigError(f"PRESSRUN_REDIS_URL {text}.")
