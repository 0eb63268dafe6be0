"""The benchmark of the knowledge base at a tiny size."""

import json
import sys

import pytest

from benchmarks import knowledge_speed

FACTS, QUERIES = 100, 3


@pytest.mark.slow
def test_the_program_prints_rates_and_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["knowledge_speed", "--facts", str(FACTS), "--queries", str(QUERIES), "--json"]
    monkeypatch.setattr(sys, "argv", words)
    knowledge_speed.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["where"] == "local mode"
    assert figures["added"] == figures["unchanged"] == FACTS
    assert figures["again_per_s"] > figures["ingest_per_s"] > 0
    assert 0 < figures["p50_ms"] <= figures["p95_ms"]
