"""Passages that try to be more than text, for tests of the code that reads passages."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

FILE = Path(__file__).parents[1] / "data" / "injections.jsonl"

GRAMMAR = re.compile(r"[()\[\]{}<>|\\]|__|[Ee]mbedding:\S|\b(?:AND|BREAK)\b")
"""Prompt syntax of renderers: assets, weights, schedules, choices."""


class Injection(NamedTuple):
    """A hostile text and the kind of attack."""

    kind: str
    text: str


def injections() -> list[Injection]:
    """All of the file, in order."""
    lines = FILE.read_text(encoding="ascii").splitlines()
    return [Injection(**json.loads(line)) for line in lines]


def parametrised(chosen: list[Injection]) -> pytest.MarkDecorator:
    """A mark that runs a test once for each."""
    return pytest.mark.parametrize(
        "injection",
        [
            pytest.param(injection, id=f"{number}-{injection.kind.replace(' ', '-')}")
            for number, injection in enumerate(chosen, 1)
        ],
    )


def of_each_kind(count: int) -> list[Injection]:
    """The first so many of each kind."""
    found = injections()
    kinds = dict.fromkeys(injection.kind for injection in found)
    return [
        injection
        for kind in kinds
        for injection in [each for each in found if each.kind == kind][:count]
    ]


each_injection = parametrised(injections())
