"""The soak: when a run counts as recovered, and a small one with real parts."""

import json
import subprocess
import sys

import pytest

from benchmarks.common import ROOT
from benchmarks.soak import Strike, recovery

STEADY = [number / 10 for number in range(200)]
"""Ten outcomes a second for 20 s."""
KEYS = ("jobs", "lost", "duplicated", "recovered", "unexpected", "faults", "recovery_p95_s")


@pytest.mark.parametrize("silence", [0.0, 3.0, 40.0])
def test_recovery_is_counted_from_the_faults_end(silence: float) -> None:
    strike = Strike("kind", begun=20.0, over=22.0)
    after = [22.0 + silence + time for time in STEADY]
    assert recovery(STEADY + after, strike) == pytest.approx(silence)


def test_single_outcomes_are_no_recovery() -> None:
    strike = Strike("kind", begun=20.0, over=20.0)
    drops = [21.0, 24.0, 27.0]
    after = [35.0 + time for time in STEADY]
    assert recovery(STEADY + drops + after, strike) == pytest.approx(15.0)


def test_a_fault_that_nothing_follows_has_no_recovery() -> None:
    assert recovery(STEADY, Strike("kind", begun=20.0, over=20.0)) is None


@pytest.mark.slow
def test_the_books_balance_after_a_few_faults() -> None:
    words = ["--minutes", "0.15", "--jobs", "240", "--every", "2", "--seed", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["jobs"] == 240
    assert figures["faults"] == sum(kind["count"] for kind in figures["by_fault"].values()) > 1
    assert (figures["lost"], figures["duplicated"], figures["unexpected"]) == (0, 0, 0)
    assert set(KEYS) <= set(figures)
