"""What is told of a race, on contests whose outcome is known."""

import pytest

from examples.shapes.measure.race import TENTHS, figures
from pipeline.job import Score
from pipeline.judging.racing import Finished


def held(previews: list[float]) -> list[Finished]:
    """One contest of eight that ends in the order of the numbers 1 to 8."""
    ends = [Score(raw=i, calibrated=i / 8) for i in range(1, 9)]
    early = [Score(raw=value, calibrated=0) for value in previews]
    return [Finished(dict.fromkeys(TENTHS, early), ends)]


@pytest.mark.parametrize(
    ("previews", "spearman", "half", "quarter"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], 1, 0, 0),
        ([8, 7, 6, 5, 4, 3, 2, 1], -1, 0.5, 0.75),
    ],
)
def test_figures_follow_the_previews(
    previews: list[float], spearman: float, half: float, quarter: float
) -> None:
    found = figures(held(previews))["0.5"]
    assert found == {"spearman": spearman, "regret_half": half, "regret_quarter": quarter}
