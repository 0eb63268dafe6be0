"""What a run's progress says, and who is told."""

import time
from logging import getLogger

import pytest

from flows.artifacts import described
from flows.dispatch import progress
from flows.dispatch.dispatcher import Stopped
from flows.dispatch.progress import MINUTE, Pauses, ProgressCounter, RunProgress, Snapshot
from flows.runs.costs import FREE, Price
from pipeline.record import Status


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_are_those_of_the_last_minute_and_tell_how_long_it_will_take() -> None:
    clock = Clock()
    tally = ProgressCounter("r", clock)
    tally.expect(1000)
    assert tally.snapshot().left is None, "no rate yet"
    tally.skip(100, invalid=10)
    for _ in range(2 * int(MINUTE)):  # a slow beginning that is forgotten
        clock.now += 1
        tally.snapshot()
    for _ in range(int(MINUTE)):
        clock.now += 1
        tally.count(Status.ACCEPTED, 0.5)
        tally.count(Status.BELOW_GATE, 0.25)
        tally.count(Status.FAILED)
        snapshot = tally.snapshot()
    assert snapshot.left is None, "the job file is still being read"
    tally.expect(1000, whole=True)
    snapshot = tally.snapshot()
    assert snapshot.done == 100 + 3 * MINUTE
    assert snapshot.images_per_second == pytest.approx(2, rel=0.05)
    assert snapshot.left == pytest.approx((1000 - snapshot.done) / 3, rel=0.05)
    assert snapshot.device_seconds == 0.75 * MINUTE
    assert snapshot.counts[Status.FAILED] == MINUTE
    assert (snapshot.counts[Status.INVALID], snapshot.before) == (10, 90)


def test_what_a_tally_holds_does_not_grow() -> None:
    clock = Clock()
    tally = ProgressCounter("r", clock)
    for _ in range(10_000):
        clock.now += 1
        tally.count(Status.ACCEPTED)
        tally.snapshot()
    assert len(tally._looks) <= MINUTE + 1


def test_a_snapshot_is_described_in_words() -> None:
    counts = {Status.ACCEPTED: 1200, Status.BELOW_GATE: 34}
    text = described(
        Snapshot(
            "spring", "working", 12_000, 1234, counts, 2.5, left=3725.0, seconds=61.0,
            device_seconds=7200.0,
        ),
        Price(1.5, "EUR"),
    )  # fmt: skip
    for part in (
        "spring",
        "working",
        "1,234 of 12,000",
        "1,200",
        "34",
        "2.50",
        "1:02:05",
        "3.00 EUR",
    ):
        assert part in text
    paused = described(Snapshot("spring", "working", paused="no store"), FREE)
    assert "paused: no store" in paused
    assert "cost" not in paused


class Listening:
    """Remembers what it is shown."""

    def __init__(self) -> None:
        self.shown = list[Snapshot]()

    def show(self, snapshot: Snapshot) -> None:
        self.shown.append(snapshot)


def test_a_pause_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    pauses = Pauses(getLogger("pauses"))
    with caplog.at_level("INFO"):
        for reason in ("", "no store", "no store", ""):
            pauses.show(Snapshot("spring", paused=reason))
    assert [record.getMessage() for record in caplog.records] == [
        "run spring pauses: no store", "run spring goes on",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "phase"),
    [(Stopped(), "stopped"), (KeyboardInterrupt(), "stopped"), (ValueError(), "failed")],
)
def test_the_last_that_is_shown_of_a_run_that_ended_early_says_so(
    error: BaseException, phase: str
) -> None:
    listening = Listening()
    run = RunProgress("spring", [listening])
    run.expect(200)
    run.skip(24)
    run.pause("no store")
    with pytest.raises(type(error)), run:
        raise error
    text = described(listening.shown[-1], FREE)
    assert text.startswith(f"Run **spring**, {phase}\n")
    assert "| left | 176 |" in text
    assert "`pressrun resume spring` goes on" in text


class Deaf:
    """Cannot show anything."""

    def show(self, snapshot: Snapshot) -> None:
        raise ConnectionError("the server is away")


def test_progress_is_reported_regularly_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.05)
    listening, beats = Listening(), list[float]()
    with RunProgress("r", [Deaf(), listening], [lambda: beats.append(time.monotonic())]) as run:
        run.enter("working")
        while len(listening.shown) < 5 or len(beats) < 4:
            time.sleep(0.01)
        run.count(Status.ACCEPTED)
        run.enter("finished")
    assert (listening.shown[-1].done, listening.shown[-1].phase) == (1, "finished")
