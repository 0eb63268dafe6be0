"""How Prefect's client and server come to one password."""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from flows.stack.embedded import PREFECT_PASSWORD, SERVER_PASSWORD, quiet_prefect
from pipeline.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a home of its own, in an environment that is as it was afterwards."""
    monkeypatch.setattr("pipeline.settings.SECRETS", tmp_path / "secrets")
    with patch.dict(os.environ):
        for name in (PREFECT_PASSWORD, SERVER_PASSWORD, "PREFECT_API_URL"):
            os.environ.pop(name, None)
        yield load_settings(home=tmp_path / "home")


def passwords() -> tuple[str | None, str | None]:
    """What the client sends and what a server asks for."""
    return os.environ.get(PREFECT_PASSWORD), os.environ.get(SERVER_PASSWORD)


def test_a_private_server_asks_for_a_random_password(settings: Settings) -> None:
    quiet_prefect(settings)
    sent, asked = passwords()
    assert sent == asked
    assert sent
    assert sent.startswith("pressrun:")
    assert len(sent) > 30


@pytest.mark.parametrize("given", [PREFECT_PASSWORD, SERVER_PASSWORD])
def test_a_private_server_asks_for_the_password_that_is_given(
    settings: Settings, given: str
) -> None:
    os.environ[given] = "me:mine"
    quiet_prefect(settings)
    assert passwords() == ("me:mine", "me:mine")


def test_a_server_elsewhere_is_sent_what_was_given_for_it(
    settings: Settings, tmp_path: Path
) -> None:
    os.environ["PREFECT_API_URL"] = "http://prefect:4200/api"
    quiet_prefect(settings)
    assert passwords() == (None, None)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / PREFECT_PASSWORD.lower()).write_text("me:filed\n", encoding="utf-8")
    quiet_prefect(settings)
    assert passwords() == ("me:filed", None)
