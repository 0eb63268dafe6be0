"""The faults and the checks of the benchmark of repairs."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.repair import FAULTS, FirstPrompts, checks_of, spoiled
from examples.shapes import umpire, world
from pipeline.job import Brief, Context, Job, Rejected
from tests.harness.jobs import make_job


@pytest.mark.parametrize("fault", FAULTS)
def test_an_image_of_the_wrong_prompt_is_never_right(fault: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        scene = world.sample_scene(rng, two=1)
        wrong = spoiled(scene, fault, rng)
        assert not umpire.confirms(wrong, world.prompt(scene))
        assert world.is_legal(wrong)
        assert len(wrong.things) == (1 if fault == "missing" else 2)


def test_the_colours_of_two_things_are_exchanged() -> None:
    rng = np.random.default_rng(1)
    one, two = world.Thing("circle", "red"), world.Thing("star", "blue")
    scene = world.Scene((one, two), "white", "above")
    turned = (replace(one, colour="blue"), replace(two, colour="red"))
    assert spoiled(scene, "swapped", rng) == replace(scene, things=turned)


def test_the_checks_say_each_thing_their_places_and_the_background() -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        scene = world.sample_scene(rng, two=1)
        texts = [check.question.split('"')[1] for check in checks_of(scene)]
        assert len(texts) == 4
        parts = [world.parse(text) for text in texts]
        assert [part["things"][0] for part in parts[:2]] == world.attributes(scene)["things"]
        assert world.agrees(parts[2], scene)
        assert parts[3] == {"things": [], "background": scene.background}


def test_only_the_first_prompt_is_given() -> None:
    class Asked:
        def write(self, job: Job, context: Context, rejected: Rejected | None = None) -> Brief:
            return Brief(text=job.keywords, prompt="another")

    given = Brief(text="red circle", prompt="blue circle")
    writer = FirstPrompts(Asked(), {"red circle": given})
    job = make_job(keywords="red circle")
    assert writer.write(job, Context()) == given
    assert writer.write(job, Context(), Rejected("blue circle", ())).prompt == "another"
