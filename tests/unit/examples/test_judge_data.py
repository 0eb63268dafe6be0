"""Which sentences are true of which scenes."""

import numpy as np

from examples.shapes import world
from examples.shapes.training.judge import data as judge_data
from examples.shapes.training.judge import generated


def test_codes_agree_as_scenes_and_sentences_do() -> None:
    rng = np.random.default_rng(0)
    scenes = [world.sample_scene(rng, two=0.5) for _ in range(40)]
    texts = [judge_data.sentence(s, rng) for s in scenes]
    texts += [judge_data.untrue_sentence(s, rng) for s in scenes]
    truths = np.array([judge_data.code(world.attributes(s)) for s in scenes])
    said = np.array([judge_data.code(world.parse(text)) for text in texts])
    expected = [[world.agrees(world.parse(text), s) for text in texts] for s in scenes]
    assert np.array_equal(judge_data.agreement(truths, said), expected)


def test_without_an_arrangement_two_things_may_be_named_in_either_order() -> None:
    scene = world.Scene((world.Thing("star", "red"), world.Thing("ring", "blue")), "white", "above")
    truth = np.array([judge_data.code(world.attributes(scene))])
    texts = ["a blue ring and a red star", "a blue ring above a red star", "a red ring and a star"]
    said = np.array([judge_data.code(world.parse(text)) for text in texts])
    assert judge_data.agreement(truth, said).tolist() == [[True, False, False]]


def test_untrue_sentences_are_untrue_and_true_ones_true() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        scene = world.sample_scene(rng, two=0.5)
        assert world.agrees(world.parse(judge_data.sentence(scene, rng)), scene)
        assert not world.agrees(world.parse(judge_data.untrue_sentence(scene, rng)), scene)


def test_neighbours_are_legal_and_others() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        scene = world.sample_scene(rng, two=0.5)
        around = judge_data.neighbours(scene)
        assert scene not in around
        assert len(set(around)) == len(around) > 15
        assert all(world.is_legal(other) for other in around)
        assert world.one_wrong(scene, rng) in around


def test_a_canonical_prompt_is_read_as_its_scene() -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        scene = world.sample_scene(rng, two=0.5)
        assert generated.scene(world.prompt(scene)) == scene
