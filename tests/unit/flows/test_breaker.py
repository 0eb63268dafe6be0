"""When a run pauses, and when it goes on."""

from flows.dispatch.breaker import FIRST_PAUSE, LEAST, LONGEST_PAUSE, RECENT, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(LEAST):
        breaker.requeued("S3 is down")
    return breaker


def test_one_job_in_ten_may_go_back() -> None:
    breaker = Breaker()
    for _ in range(20):
        for _ in range(9):
            breaker.ended()
        breaker.requeued("now and then")
    assert not breaker.is_open
    assert breaker.room(64) == 64


def test_a_few_failures_at_the_start_do_not_open_it() -> None:
    breaker = Breaker()
    for _ in range(LEAST - 1):
        breaker.requeued("starting")
    assert not breaker.is_open


def test_more_than_a_tenth_opens_it_with_the_reason() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert breaker.reason == "S3 is down"
    assert breaker.room(64) == 0
    clock.now += 7
    assert breaker.open_for == 7


def test_only_the_latest_jobs_count() -> None:
    breaker = Breaker()
    for _ in range(10 * RECENT):
        assert not breaker.ended()
    for _ in range(RECENT // 10):
        breaker.requeued("S3 is down")
    assert not breaker.is_open
    assert breaker.open_for == 0
    breaker.requeued("S3 is down")
    assert breaker.is_open


def test_after_the_pause_one_job_tries() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += FIRST_PAUSE
    assert breaker.room(64) == 1
    assert breaker.ended()
    assert not breaker.is_open
    assert breaker.room(64) == 64


def test_what_was_in_flight_and_goes_back_too_makes_the_pause_no_longer() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(3):
        breaker.requeued("S3 is down")
    clock.now += FIRST_PAUSE
    assert breaker.room(64) == 1


def test_once_closed_it_forgets_what_went_back_and_how_long_it_paused() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += FIRST_PAUSE
    breaker.requeued("still down")
    breaker.ended()
    breaker.requeued("now and then")
    assert not breaker.is_open
    for _ in range(LEAST):
        breaker.requeued("down again")
    clock.now += FIRST_PAUSE
    assert breaker.room(64) == 1


def test_each_failed_trial_doubles_the_pause() -> None:
    clock = Clock()
    breaker, pause, since = opened(clock), FIRST_PAUSE, clock.now
    for _ in range(8):
        clock.now += pause - 1
        assert breaker.room(64) == 0
        clock.now += 1
        assert breaker.room(64) == 1
        breaker.requeued("still down")
        assert breaker.room(64) == 0
        pause = min(LONGEST_PAUSE, 2 * pause)
    clock.now += LONGEST_PAUSE
    assert breaker.room(64) == 1
    assert breaker.open_for == clock.now - since
