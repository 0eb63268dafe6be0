"""Failed images look failed where they say so, and nowhere else."""

import numpy as np
import pytest

from examples.shapes import world
from examples.shapes.training import damage

PAIR = world.Scene((world.Thing("star", "red"), world.Thing("ring", "blue")), "white", "beside")


def clean_and_marks(seed: int) -> tuple[world.ImageArray, tuple[bool, ...]]:
    """What `spoil` starts from with this seed, by replaying its first random numbers."""
    replay = np.random.default_rng(seed)
    marks = tuple(bool(replay.random() < 0.5) for _ in PAIR.things)
    return world.draw(PAIR, np.random.default_rng(int(replay.integers(2**31)))), marks


SEEDS = [seed for seed in range(30) if any(clean_and_marks(seed)[1])]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_spoiled_halves_change_and_no_other(seed: int) -> None:
    clean, marks = clean_and_marks(seed)
    image, spoiled = damage.spoil(PAIR, np.random.default_rng(seed))
    assert image.dtype == np.uint8
    assert spoiled == marks
    halves = (slice(0, 32), slice(32, 64))
    changed = [not np.array_equal(image[:, half], clean[:, half]) for half in halves]
    assert changed == list(spoiled)


@pytest.mark.parametrize("seed", range(8))
def test_a_wobble_moves_little(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = world.draw(world.sample_scene(rng), rng)
    apart = np.abs(damage.wobble(image, rng).astype(int) - image)
    assert 0 < apart.mean() < 8
