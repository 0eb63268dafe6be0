"""A run whose writer's server refuses every job."""

from pathlib import Path

import pytest

from tests.harness.chat_server import chat_server, refusal
from tests.harness.commandline import pressrun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROFILE = 'extends = "shapes"\n[writer]\nkind = "endpoint"\nmodel = "m"\n'


def test_a_wrong_key_ends_the_run_and_books_no_row(prefect_server: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(PROFILE, encoding="utf-8")
    rows = "".join(f"red circle {number}\n" for number in range(12))
    (tmp_path / "jobs.csv").write_text("keywords\n" + rows, encoding="utf-8")
    with chat_server(lambda _: refusal(401, "no such key")) as server:
        settings = {
            "PREFECT_API_URL": prefect_server,
            "PRESSRUN_PROFILE": "mine.toml",
            "PRESSRUN_WRITER_URL": server.url,
        }
        done = pressrun("run", "jobs.csv", cwd=tmp_path, settings=settings)
    assert done.returncode == 1
    assert "refused (401): no such key" in done.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.rglob("records/**/*.json"))
