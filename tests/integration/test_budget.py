"""A run stops in order when its budget is used up or its quota met, and `resume` finishes it."""

from pathlib import Path
from typing import Any

import pytest

from flows.cli.output import OUT_OF_BUDGET
from flows.dispatch.budget import FIRST
from tests.harness.commandline import answer, pressrun
from tests.harness.connected import stand_ins

pytestmark = pytest.mark.slow

ROWS, WINDOW = 90, 8


def test_the_overshoot_is_below_one_batch_and_the_rest_is_resumed(
    prefect_server: str, tmp_path: Path
) -> None:
    limits = {"PRESSRUN_WINDOW": str(WINDOW), "STAND_IN_SECONDS": "0.1"}
    with stand_ins(tmp_path, {"PREFECT_API_URL": prefect_server} | limits) as settings:
        rows = "".join(f"red circle number {n},0,keywords,4\n" for n in range(ROWS))
        (tmp_path / "many.csv").write_text("keywords,passages,mode,steps\n" + rows)

        def go(*words: str, code: int) -> dict[str, Any]:
            return answer(pressrun(*words, "--json", cwd=tmp_path, settings=settings), code)

        tiny = ("--candidates", "1", "--budget-gpu-seconds", "0.001")
        first = go("run", "many.csv", *tiny, code=OUT_OF_BUDGET)
        assert ended(first) == FIRST
        budget = 8 * first["device_seconds"] / FIRST
        second = go("resume", "many", "--budget-gpu-seconds", f"{budget}", code=OUT_OF_BUDGET)
        assert FIRST < ended(second) < ROWS
        assert second["left"] == ROWS - ended(second)
        assert second["lost"] == 0
        spent = second["device_seconds"] - first["device_seconds"]
        mean = spent / (ended(second) - FIRST)
        assert spent < budget + WINDOW * mean
        rest = go("resume", "many", code=0)
        assert ended(rest) == ROWS
        assert "stopped" not in rest


def test_a_quota_counts_what_earlier_commands_accepted_and_is_never_exceeded(
    prefect_server: str, tmp_path: Path
) -> None:
    limits = {"PRESSRUN_WINDOW": str(WINDOW), "PRESSRUN_SHARD": "16"}
    with stand_ins(tmp_path, {"PREFECT_API_URL": prefect_server} | limits) as settings:
        rows = "".join(f"blue ring number {n},0,keywords,1\n" for n in range(48))
        (tmp_path / "some.csv").write_text("keywords,passages,mode,candidates\n" + rows)

        def go(*words: str) -> dict[str, Any]:
            return answer(pressrun(*words, "--json", cwd=tmp_path, settings=settings), 0)

        first = go("run", "some.csv", "--quota", "11")
        assert (first["accepted"], first["quota"], first["lost"]) == (11, 11, 0)
        assert first["left"] == 48 - ended(first)
        assert "11 images are accepted" in first["stopped"]
        second = go("resume", "some", "--quota", "30")
        assert (second["accepted"], second["quota"]) == (30, 30)
        again = go("resume", "some", "--quota", "30")
        assert (again["accepted"], again["left"]) == (30, 18)
        assert go("status", "some")["state"] == "stopped"
        rest = go("resume", "some", "--quota", "60")
        assert (rest["accepted"], rest["quota"]) == (48, 60)
        assert "stopped" not in rest


def ended(summary: dict[str, Any]) -> int:
    return sum(summary[kind] for kind in ("accepted", "below_gate"))
