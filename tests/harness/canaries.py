"""Secrets to plant, and to look for in everything that was written."""

import base64
import json
import random
from collections.abc import Iterable
from urllib.parse import quote

from pydantic import SecretStr

from pipeline.settings import Settings

PIECE = 6
"""Letters of a secret that give it away."""
LETTERS = "ghjkmnpqrstvwxyzGHJKMNPQRSTVWXYZ"  # no digest has them
KEYS = [
    name
    for name, field in Settings.model_fields.items()
    if field.annotation is SecretStr and name != "webhook"
]
URLS = [name for name in Settings.model_fields if name.endswith("_url")]
OTHERS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "OTEL_EXPORTER_OTLP_HEADERS",
    "PREFECT_API_AUTH_STRING",
)  # fmt: skip
"""Secrets of other programs."""
SIGNS = {"plain": "", "awkward": "/#@?%:&=+ '\"\\", "for a header": "/#@?%:&=+'\"\\"}


def canary(name: str, signs: str = "") -> str:
    """A secret for a setting: a word of it before and after each sign."""
    dice = random.Random(name)
    words = ["".join(dice.choices(LETTERS, k=10)) for _ in range(len(signs) + 1)]
    return words[0] + "".join(sign + word for sign, word in zip(signs, words[1:], strict=True))


def leaked(secrets: Iterable[str], said: str) -> list[str]:
    """The pieces of the secrets found in a text, plain or encoded."""
    pieces = set[str]()
    for secret in secrets:
        words = "".join(letter if letter in LETTERS else " " for letter in secret).split()
        for word in words:
            pieces |= {word[begin : begin + PIECE] for begin in range(len(word) - PIECE + 1)}
        for each in (secret, f"user:{secret}", f":{secret}"):
            coded = base64.b64encode(each.encode()).decode().rstrip("=")
            pieces |= {coded, coded[-16:]}
        pieces |= {quote(secret, safe=""), json.dumps(secret)[1:-1]}
    return sorted(piece for piece in pieces if piece in said)
