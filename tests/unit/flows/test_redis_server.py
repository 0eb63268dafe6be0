"""Which server is started, and what is said of its version."""

import json
from pathlib import Path

import pytest

from flows.stack import redis_server
from flows.stack.doctor import examine
from flows.stack.redis_server import described, is_mended, private_server, redis_binary
from pipeline.errors import ConfigError
from pipeline.settings import load_settings


@pytest.mark.parametrize(
    ("kind", "version", "mended"),
    [
        ("redis", "6.2.14", False), ("redis", "6.2.20", True), ("redis", "7.0.15", False),
        ("redis", "7.2.10", False), ("redis", "7.2.11", True), ("redis", "7.4.5", False),
        ("redis", "8.0.4", True), ("redis", "8.2.1", False), ("redis", "8.4.0", True),
        ("valkey", "8.0.5", False), ("valkey", "8.1.4", True), ("valkey", "9.0.0", True),
    ],
)  # fmt: skip
def test_a_release_is_known_for_its_fault_or_not(kind: str, version: str, mended: bool) -> None:
    numbers = tuple(map(int, version.split(".")))
    assert is_mended(kind, numbers) == mended
    assert ("CVE" in described(kind, numbers)) != mended


def server(folder: Path, name: str, said: str) -> str:
    """A program that says its version as a server does."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{said}'\n", encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_the_newest_server_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "_carried", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="PRESSRUN_REDIS_URL"):
        redis_binary()
    carried = server(tmp_path / "carried", "redis-server", "Redis server v=6.2.14 sha=0:0")
    monkeypatch.setattr(redis_server, "_carried", lambda: carried)
    assert redis_binary() == carried
    assert "redis 6.2.14" in private_server()
    assert "CVE" in private_server()
    old = server(tmp_path, "redis-server", "Redis server v=5.0.7 sha=0:0")
    assert redis_binary() != old
    faulty = server(tmp_path / "faulty", "redis-server", "Redis server v=8.2.1 sha=0:0")
    mended = server(tmp_path / "mended", "valkey-server", "Valkey server v=7.2.11 sha=0:0")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("PATH", f"{Path(faulty).parent}:{Path(mended).parent}")
        assert redis_binary() == mended
    newer = server(tmp_path, "valkey-server", "Valkey server v=8.1.4 sha=0:0")
    assert redis_binary() == newer
    assert private_server().endswith("valkey 8.1.4")


def test_doctor_names_the_server_that_answers(redis_url: str, tmp_path: Path) -> None:
    found = examine(load_settings(redis_url=redis_url, home=tmp_path, store=str(tmp_path)))
    assert found["redis"].startswith(("answers, redis ", "answers, valkey ")), json.dumps(found)
