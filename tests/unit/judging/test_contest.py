"""The contest's decisions hold for any job and any scores."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.job import Job, Rung, Score
from pipeline.judging.contest import best, next_wave, passes, rungs, survivors, winner

scores = st.builds(
    lambda calibrated, valid, final: Score(
        raw=0, calibrated=calibrated if valid else 0, valid=valid, final=final
    ),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1),
    st.booleans(),
    st.booleans(),
)
previews = st.builds(
    lambda raw, valid: Score(raw=raw if valid else 0, calibrated=0, valid=valid),
    st.sampled_from([-0.5, 0.0, 0.5]) | st.floats(-1, 1),
    st.booleans(),
)
points = st.builds(
    Rung, at=st.floats(0, 1, exclude_min=True, exclude_max=True),
    keep=st.floats(0, 1, exclude_min=True, exclude_max=True),
)  # fmt: skip
jobs = st.builds(
    Job,
    id=st.just("j"),
    row=st.just(2),
    keywords=st.just("a circle"),
    candidates=st.integers(1, 64),
    threshold=st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1),
    width=st.just(64),
    height=st.just(64),
    steps=st.just(20),
    guidance=st.just(4.0),
    seed=st.just(1),
    passages=st.just(3),
    mode=st.just("generated"),
    contest=st.sampled_from(["best_of", "first_above", "race", "race_above", "draft"]),
    wave=st.integers(1, 64),
    rungs=st.lists(points, max_size=4).map(tuple),
)
endless = st.lists(scores, min_size=64, max_size=64)


def hold(job: Job, judged: list[Score]) -> list[int]:
    """The waves of a contest in which candidate n is judged `judged[n]`."""
    waves = list[int]()
    while count := next_wave(job, judged[: sum(waves)]):
        waves.append(count)
        assert len(waves) <= job.candidates, "the contest does not end"
    return waves


@given(jobs, endless)
def test_it_ends_with_no_more_candidates_than_asked_for(job: Job, judged: list[Score]) -> None:
    waves = hold(job, judged)
    assert all(wave > 0 for wave in waves)
    assert 1 <= sum(waves) <= job.candidates


@given(jobs, endless)
def test_best_of_race_and_draft_see_them_all_at_once(job: Job, judged: list[Score]) -> None:
    if job.contest in ("best_of", "race", "draft"):
        assert hold(job, judged) == [job.candidates]


@given(jobs, endless)
def test_the_above_modes_stop_with_the_wave_that_passed_and_not_before(
    job: Job, judged: list[Score]
) -> None:
    if job.contest in ("best_of", "race", "draft"):
        return
    waves = hold(job, judged)
    seen, last = judged[: sum(waves)], judged[sum(waves) - waves[-1] : sum(waves)]
    assert all(wave <= job.wave for wave in waves)
    assert not any(passes(job, score) for score in seen[: -waves[-1]])
    assert len(seen) == job.candidates or any(passes(job, score) for score in last)


@given(st.lists(scores))
def test_the_winner_is_valid_and_none_is_better(judged: list[Score]) -> None:
    best = winner(judged)
    valid = [score for score in judged if score.valid]
    if best is None:
        assert not valid
    else:
        rivals = [score for score in valid if score.final] or valid
        assert judged[best] in rivals
        assert judged[best].calibrated == max(score.calibrated for score in rivals)


@given(st.lists(scores), st.randoms())
def test_the_order_of_arrival_does_not_change_the_winners_score(
    judged: list[Score], random: Random
) -> None:
    shuffled = list(judged)
    random.shuffle(shuffled)
    best, again = winner(judged), winner(shuffled)
    assert (best is None) == (again is None)
    if best is not None and again is not None:
        assert judged[best].calibrated == shuffled[again].calibrated


@given(jobs)
def test_only_the_race_modes_drop_anybody(job: Job) -> None:
    races = job.contest in ("race", "race_above")
    assert rungs(job) == (job.rungs if races else ())


@given(points, st.lists(previews, min_size=1, max_size=64))
def test_a_checkpoint_keeps_its_part_and_nobody_better_is_dropped(
    point: Rung, judged: list[Score]
) -> None:
    kept = survivors(point, judged)
    assert kept == sorted(set(kept))
    assert max(1, point.keep * len(judged)) <= len(kept) <= max(1, point.keep * len(judged) + 1)
    dropped = set(range(len(judged))) - set(kept)
    worst = min((judged[i].valid, judged[i].raw) for i in kept)
    assert all((judged[i].valid, judged[i].raw) <= worst for i in dropped)


@given(points, st.lists(previews, min_size=1, max_size=64), st.randoms())
def test_the_order_of_arrival_drops_nobody_else(
    point: Rung, judged: list[Score], random: Random
) -> None:
    shuffled = list(judged)
    random.shuffle(shuffled)
    kept, again = survivors(point, judged), survivors(point, shuffled)
    assert sorted(judged[i].raw for i in kept) == sorted(shuffled[i].raw for i in again)


@given(st.integers(1, 64), st.lists(previews, max_size=64), st.randoms())
def test_the_best_drafts_go_on_in_whatever_order_they_come(
    count: int, judged: list[Score], random: Random
) -> None:
    shuffled = list(judged)
    random.shuffle(shuffled)
    kept = best(count, judged)
    assert kept == sorted({*kept})
    ranked = sorted(((each.valid, each.raw) for each in judged), reverse=True)
    for these, at in ((judged, kept), (shuffled, best(count, shuffled))):
        found = sorted(((these[i].valid, these[i].raw) for i in at), reverse=True)
        assert found == ranked[:count]


@given(st.lists(st.none() | scores))
def test_a_dropped_candidate_never_wins(judged: list[Score | None]) -> None:
    best = winner(judged)
    assert best is None or judged[best] is not None
    assert best is not None or not any(score and score.valid for score in judged)


@given(st.lists(scores, min_size=1))
def test_the_first_of_equals_wins(judged: list[Score]) -> None:
    best = winner(judged)
    assert winner(judged * 2) == best


@given(jobs)
def test_an_invalid_candidate_never_passes(job: Job) -> None:
    assert not passes(job, Score(raw=1, calibrated=1, valid=False))


@given(jobs)
def test_a_candidate_that_not_all_judges_saw_never_passes(job: Job) -> None:
    assert not passes(job, Score(raw=1, calibrated=1, final=False))
