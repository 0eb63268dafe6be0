"""The judge's figures and its calibration, on numbers whose truth is known."""

import numpy as np
import pytest

from examples.shapes.measure.judge import area
from examples.shapes.training.judge import calibration


def test_area_counts_pairs_in_order_and_ties_half() -> None:
    assert area(np.array([3.0, 2.0]), np.array([1.0, 0.0])) == 1
    assert area(np.array([1.0]), np.array([1.0])) == 0.5
    assert area(np.array([1.0, 3.0]), np.array([2.0, 2.0])) == 0.5
    assert np.isnan(area(np.array([]), np.array([1.0])))


def test_fit_finds_the_curve_that_made_the_truths() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-0.2, 0.6, 20_000)
    truths = rng.random(20_000) < 1 / (1 + np.exp(-(12 * cosines - 2.4)))
    slope, offset = calibration.fit(cosines, truths)
    assert slope == pytest.approx(12, rel=0.1)
    assert -offset / slope == pytest.approx(0.2, abs=0.03)


def test_threshold_lets_nineteen_of_twenty_through() -> None:
    cosines = np.linspace(0, 1, 1001)
    level = calibration.threshold(cosines, slope=8, offset=-2)
    chances = 1 / (1 + np.exp(-(8 * cosines - 2)))
    assert (chances >= level).mean() == pytest.approx(0.95, abs=0.002)
