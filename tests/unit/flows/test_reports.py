"""What a person, or a log, reads."""

import os
from pathlib import Path

import pytest

from flows.cli.output import show
from flows.dispatch import terminal
from flows.dispatch.progress import Snapshot
from flows.stack.environment import reach_loopback_directly
from pipeline.record import Status

DEEP = "/srv/" + "a-long-folder/" * 20 + "100% of it/index.html"


def test_addresses_are_whole_and_the_gallery_is_last(capsys: pytest.CaptureFixture[str]) -> None:
    show({"gallery": DEEP, "folder": DEEP, "rows": 3, "problems": [{"line": 2, "reason": DEEP}]})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["gallery", Path(DEEP).as_uri()]
    assert sum(DEEP in line for line in lines) == 2
    assert not any(line.endswith(" ") for line in lines)


def test_an_address_on_the_web_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show({"gallery": "https://bucket/index.html"})
    assert capsys.readouterr().out == "gallery  https://bucket/index.html\n"


def test_without_a_terminal_a_line_is_written_each_minute_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(terminal, "monotonic", lambda: now)
    with terminal.Lines() as lines:
        for done in range(90):
            now += 1.0
            counts = {Status.ACCEPTED: done}
            lines.show(Snapshot("spring", "working", 90, done, counts, left=120.0))
    said = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[1] for line in said] == ["0/90", "60/90", "89/90"]
    assert said[1] == "spring: working, 60/90, accepted 60, about 2 min left"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "127.0.0.1,localhost,::1"),
        ("corp.example, localhost", "corp.example,localhost,127.0.0.1,::1"),
        ("*", "*"),
    ],
)
def test_what_runs_on_this_machine_is_reached_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", given or "")
    reach_loopback_directly()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == expected
