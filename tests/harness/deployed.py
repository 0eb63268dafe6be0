"""Readers of the deployment files: the compose file, and Kubernetes' objects."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer.main
import yaml

from flows.cli.main import app
from pipeline.settings import Settings

ROOT = Path(__file__).parents[2]


def compose() -> dict[str, Any]:
    """docker-compose.yml with its anchors resolved, its variables not."""
    found = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def settings_named(text: str) -> set[str]:
    """Every PRESSRUN_ variable in a text that is no setting."""
    named = set(re.findall(r"\bPRESSRUN_([A-Z0-9_]+)", text))
    return {name for name in named if name.lower() not in Settings.model_fields}


def is_command(words: Iterable[str]) -> bool:
    """True for a command of `pressrun` with options that it has."""
    group: Any = typer.main.get_command(app)
    name, *rest = words
    if name not in group.commands:
        return False
    known = {option for parameter in group.commands[name].params for option in parameter.opts}
    return all(word in known for word in rest if word.startswith("--"))
