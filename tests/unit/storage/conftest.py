"""Credentials for stores that speak to a server of the tests."""

import pytest

from tests.harness.scripted_s3 import ACCESS_KEY, SECRET_KEY


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
