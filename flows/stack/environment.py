"""The environment of a command and of its child processes."""

import io
import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import SecretStr

from pipeline.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def settle() -> None:
    """Complete the environment. Call it before anything reads the environment."""
    reach_loopback_directly()
    try:
        Path.home()
    except RuntimeError:  # no entry in passwd, but libraries need a home
        os.environ["HOME"] = str(Path(os.environ.get("PRESSRUN_HOME") or ".pressrun").absolute())
    # a folder with the name of one of our packages must not shadow it
    os.environ["PYTHONSAFEPATH"] = "1"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def reach_loopback_directly() -> None:
    """Exclude this machine from any proxy."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in LOOPBACK if host not in hosts]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(hosts)


def known_settings() -> list[str]:
    """The variables of our settings."""
    return [f"PRESSRUN_{name.upper()}" for name in Settings.model_fields]


def unknown_settings() -> list[str]:
    """A warning for each variable PRESSRUN_… that is no setting."""
    known = known_settings()
    warnings = []
    for name in sorted(os.environ):
        if name.upper().startswith("PRESSRUN_") and name.upper() not in known:
            near = get_close_matches(name.upper(), known, 1, 0.8)
            hint = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"{name} is no setting and has no effect{hint}")
    return warnings


def environment(settings: Settings, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment `base` with these settings in place of its own."""
    known = known_settings()
    others = {name: text for name, text in base.items() if name.upper() not in known}
    return others | variables(settings)


def variables(settings: Settings) -> dict[str, str]:
    """The settings that differ from their defaults, as variables of the environment."""
    changed = settings.model_dump(exclude_defaults=True, exclude={"chosen_profile"})
    return {
        f"PRESSRUN_{name.upper()}": str(
            value.get_secret_value() if isinstance(value, SecretStr) else value
        )
        for name, value in changed.items()
    }


def anchored(settings: Settings) -> Settings:
    """The settings with absolute paths, so that they hold in any working folder."""
    places: dict[str, object] = {
        "home": settings.home.absolute(),
        "models": settings.models.absolute(),
    }
    for name in ("store", "inbox"):
        place = getattr(settings, name)
        if place and "://" not in place:
            places[name] = str(Path(place).absolute())
    if settings.profile.endswith(".toml"):
        places["profile"] = str(Path(settings.profile).absolute())
    return settings.model_copy(update=places)
