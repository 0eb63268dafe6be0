"""Thresholds for a precision, and fitted panels, on scores whose truth is known."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RunError
from pipeline.judging.gate import auc, fit, gate, gate_by_contrasts, wilson
from pipeline.judging.panel import logit

APART = 2.5
"""Distance of right from wrong scores, in standard deviations, before they become chances."""
RIGHT = 0.7

labelled = st.lists(
    st.tuples(st.integers(0, 1000).map(lambda chance: chance / 1000), st.booleans()),
    min_size=30,
    max_size=90,
).filter(lambda rows: 5 <= sum(right for _, right in rows) <= len(rows) - 5)


def chances_of(sums: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-sums))


def true_precision(threshold: float) -> float:
    at, normal = math.log(threshold / (1 - threshold)), NormalDist()
    right = RIGHT * (1 - normal.cdf(at - APART))
    return right / (right + (1 - RIGHT) * (1 - normal.cdf(at)))


@pytest.mark.parametrize("count", [60, 400])
def test_the_true_precision_of_a_found_threshold_is_in_its_interval(count: int) -> None:
    rng, within, found = np.random.default_rng(count), 0, list[float]()
    for _ in range(200):
        right = rng.random(count) < RIGHT
        chances = chances_of(rng.normal(size=count) + APART * right)
        it = gate(chances, right.tolist(), 0.9)
        found.append(true_precision(it.threshold))
        within += it.interval[0] <= found[-1] <= it.interval[1]
    assert within >= 0.92 * 200
    assert np.mean(found) == pytest.approx(0.9, abs=0.02)


def contests(rng: np.random.Generator, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The winners' scores of contests, and which are right: rows differ in difficulty, and a judge
    sees right images with noise.
    """
    hard = rng.normal(size=(count, 1))
    right = rng.random((count, size)) < chances_of(1.5 * hard)
    sums = rng.normal(size=(count, size)) + 3 * right + 0.5 * rng.normal(size=(count, 1))
    best = sums.argmax(1)
    each = np.arange(count)
    return sums[each, best], right[each, best]


@pytest.mark.parametrize("size", [1, 8])
def test_contrasts_find_the_threshold_that_labels_find(size: int) -> None:
    rng = np.random.default_rng(size)
    sums, _ = contests(rng, 500, size)
    wrong = (rng.normal(size=(500, size)) + 0.5 * rng.normal(size=(500, 1))).max(1)
    it, share = gate_by_contrasts(chances_of(sums), chances_of(wrong), 0.95)
    fresh, right = contests(rng, 200_000, size)
    accepted = chances_of(fresh) >= it.threshold
    assert right[accepted].mean() == pytest.approx(0.95, abs=0.05)
    assert it.interval[0] <= right[accepted].mean() <= it.interval[1] + 0.05
    assert share >= 1 - right.mean() - 0.03
    assert it.recall == pytest.approx((accepted & right).sum() / right.sum(), abs=0.1)


def test_single_contrasts_would_accept_too_much() -> None:
    rng = np.random.default_rng(5)
    sums, _ = contests(rng, 500, 8)
    single = rng.normal(size=500) + 0.5 * rng.normal(size=500)
    it, _ = gate_by_contrasts(chances_of(sums), chances_of(single), 0.95)
    fresh, right = contests(rng, 100_000, 8)
    assert right[chances_of(fresh) >= it.threshold].mean() < 0.92


@given(labelled, st.sampled_from([0.5, 0.8, 0.9]))
def test_the_figures_are_counts(rows: list[tuple[float, bool]], precision: float) -> None:
    chances, right = [chance for chance, _ in rows], [flag for _, flag in rows]

    def counted(threshold: float) -> tuple[int, int]:
        accepted = [flag for chance, flag in rows if chance >= threshold]
        return len(accepted), sum(accepted)

    enough = round(1 / (1 - precision))
    fit_ones = [
        chance
        for chance in chances
        if counted(chance)[0] >= enough and counted(chance)[1] / counted(chance)[0] >= precision
    ]
    if not fit_ones:
        with pytest.raises(RunError, match="precision"):
            gate(chances, right, precision)
        return
    it = gate(chances, right, precision)
    count, hits = counted(it.threshold)
    assert (it.accepted, it.winners) == (count, len(rows))
    assert it.precision == hits / count >= precision
    assert it.recall == hits / sum(right)
    assert it.threshold <= min(fit_ones) < it.threshold + 2e-5


def test_an_interval_is_wilsons() -> None:
    # R: prop.test(18, 20, correct = FALSE)
    assert wilson(18, 20) == pytest.approx((0.6989664, 0.9721335), abs=1e-6)
    assert wilson(20, 20)[1] == 1


@given(labelled)
def test_the_area_is_the_share_of_pairs_in_order(rows: list[tuple[float, bool]]) -> None:
    pairs = [(good > bad) + (good == bad) / 2 for good, g in rows if g for bad, b in rows if not b]
    assert auc(*zip(*rows, strict=True)) == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.parametrize(
    ("right", "wanted", "told"),
    [
        ([True, False] * 14, 0.9, "needs 30 labelled winners.* there are 28.*about 30"),
        ([True] * 48 + [False] * 2, 0.9, "there are 50, of which 2 wrong. Review about 125"),
        ([True] * 50, 0.9, "of which 0 wrong. Review about 100"),
        ([True, False] * 30, 0.99, "told by 100 accepted winners, and there are 60"),
        ([True, False] * 30, 0.9, "the highest is 0.5"),
        ([True, False] * 30, 1.0, "between 0 and 1"),
    ],
)
def test_too_little_is_refused(right: list[bool], wanted: float, told: str) -> None:
    with pytest.raises(RunError, match=told):
        gate([0.5] * len(right), right, wanted)


def test_few_rows_with_contrasts_are_refused() -> None:
    with pytest.raises(RunError, match=r"needs 30 winners and 30 contests .* are 40 and 29"):
        gate_by_contrasts([0.5] * 40, [0.1] * 29, 0.9)


def drawn_parts(
    rng: np.random.Generator, count: int, weights: list[float], offset: float
) -> tuple[list[dict[str, float]], list[bool]]:
    odds = rng.normal(size=(count, len(weights)))
    right = rng.random(count) < chances_of(odds @ weights + offset)
    return [
        {f"judge-{place}": float(c) for place, c in enumerate(row)} for row in chances_of(odds)
    ], right.tolist()


def test_a_panels_weights_are_found() -> None:
    parts, right = drawn_parts(np.random.default_rng(1), 4000, [2.0, 0.5, 0.0], 0.7)
    found = fit(parts, right)
    assert [*found.weights.values()] == pytest.approx([2.0, 0.5, 0.0], abs=0.15)
    assert found.offset == pytest.approx(0.7, abs=0.15)
    again = [
        found.offset + sum(w * logit(part[name]) for name, w in found.weights.items())
        for part in parts
    ]
    # another fit for each tenth hardly differs, and none of them is this one
    assert found.chances == pytest.approx(chances_of(np.array(again)), abs=0.02)
    assert (found.chances != chances_of(np.array(again))).all()
    assert found.auc > auc([part["judge-1"] for part in parts], right) + 0.1


def test_held_out_rows_do_not_flatter_judges_that_know_nothing() -> None:
    areas = [
        fit(*drawn_parts(np.random.default_rng(seed), 120, [0.0] * 4, 0.0)).auc
        for seed in range(20)
    ]
    assert np.mean(areas) < 0.53


def test_a_judge_that_is_wrong_about_all_weighs_nothing() -> None:
    parts, right = drawn_parts(np.random.default_rng(2), 500, [2.0, -1.0], 0.0)
    assert fit(parts, right).weights["judge-1"] == 0


def test_judges_that_tell_all_apart_get_finite_weights() -> None:
    right = [True, False] * 40
    parts = [{"a": 0.99 if flag else 0.01, "b": 0.3} for flag in right]
    found = fit(parts, right)
    assert 0 < found.weights["a"] < 10
    assert found.weights["b"] == pytest.approx(0, abs=1e-6)
    assert found.auc == 1


def test_few_labels_fit_no_panel() -> None:
    parts, right = drawn_parts(np.random.default_rng(3), 49, [1.0, 1.0], 0.0)
    with pytest.raises(RunError, match=r"50 labelled winners .* 20 of them right and 20 wrong"):
        fit(parts, right)
