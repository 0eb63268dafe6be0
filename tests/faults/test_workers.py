"""Workers that die and freeze at every point of a job."""

import signal

import pytest

from tests.faults.floor import IN_HAND, Floor

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("point", ["render", "after_picture", "before_record", "after_record"])
def test_a_worker_is_killed(floor: Floor, point: str) -> None:
    floor.hang(point, signal.SIGKILL)
    with floor.dispatching():
        floor.hire()
        floor.hire()
        floor.fallen(point)
    floor.prove(floor.rows + IN_HAND)
