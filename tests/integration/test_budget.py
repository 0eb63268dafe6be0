"""A run stops in order when its budget is used up or its quota met, and `resume` finishes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli.output import OUT_OF_BUDGET
from flows.dispatch.budget import FIRST
from tests.harness.commandline import answer, pressrun_here
from tests.harness.connected import stand_ins

pytestmark = pytest.mark.slow

ROWS, WINDOW = 90, 8


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the commands and the worker work in."""
    return tmp_path_factory.mktemp("desk")


@pytest.fixture(scope="module")
def settings(prefect_server: str, desk: Path) -> Iterator[dict[str, str]]:
    """Settings of commands that find a stand-in worker."""
    limits = {"PRESSRUN_WINDOW": str(WINDOW), "STAND_IN_SECONDS": "0.1"}
    with stand_ins(desk, {"PREFECT_API_URL": prefect_server} | limits) as settings:
        yield settings


def test_the_overshoot_is_below_one_batch_and_the_rest_is_resumed(
    desk: Path, settings: dict[str, str]
) -> None:
    rows = "".join(f"red circle number {n},0,keywords,4\n" for n in range(ROWS))
    (desk / "many.csv").write_text("keywords,passages,mode,steps\n" + rows)

    def go(*words: str, code: int) -> dict[str, Any]:
        return answer(pressrun_here(*words, "--json", cwd=desk, settings=settings), code)

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
    desk: Path, settings: dict[str, str]
) -> None:
    settings = settings | {"PRESSRUN_SHARD": "16"}
    rows = "".join(f"blue ring number {n},0,keywords,1\n" for n in range(48))
    (desk / "some.csv").write_text("keywords,passages,mode,candidates\n" + rows)

    def go(*words: str) -> dict[str, Any]:
        return answer(pressrun_here(*words, "--json", cwd=desk, settings=settings), 0)

    first = go("run", "some.csv", "--quota", "11")
    assert (first["accepted"], first["quota"], first["lost"]) == (11, 11, 0)
    assert first["left"] == 48 - ended(first)
    assert "11 images are accepted" in first["stopped"]
    second = go("resume", "some", "--quota", "30")
    assert (second["accepted"], second["quota"]) == (30, 30)
    again = go("resume", "some", "--quota", "30")
    assert (again["accepted"], again["left"]) == (30, 18)
    status = pressrun_here("status", "some", "--json", cwd=desk, settings=settings)
    assert answer(status)["state"] == "stopped"
    rest = go("resume", "some", "--quota", "60")
    assert (rest["accepted"], rest["quota"]) == (48, 60)
    assert "stopped" not in rest


def test_a_budget_ends_a_run_whose_equal_rows_are_more_than_its_quota(
    desk: Path, settings: dict[str, str]
) -> None:
    rows = "".join(f"teal star number {n},0,keywords,1\n" for n in [0] * 8 + [*range(1, 9)])
    (desk / "equal.csv").write_text("keywords,passages,mode,candidates\n" + rows)
    limits = ("--quota", str(FIRST + 1), "--budget-gpu-seconds", "0.001", "--json")
    command = pressrun_here("run", "equal.csv", *limits, cwd=desk, settings=settings)
    summary = answer(command, OUT_OF_BUDGET)
    assert (summary["accepted"], summary["quota_met"]) == (8 + FIRST - 1, False)
    assert "0.001 device seconds" in summary["stopped"]


def ended(summary: dict[str, Any]) -> int:
    return sum(summary[kind] for kind in ("accepted", "below_gate"))
