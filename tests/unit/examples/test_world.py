"""The world of the small models: images, sentences and the way back."""

import numpy as np
import pytest

from examples.shapes import world
from examples.shapes.world import Scene, Thing

CIRCLE = Scene((Thing("circle", "white", "small", "left"),), "teal")
PAIR = Scene((Thing("circle", "red"), Thing("square", "blue")), "white", "beside")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def scenes(rng: np.random.Generator, count: int = 500) -> list[Scene]:
    return [world.sample_scene(rng, two=0.5) for _ in range(count)]


def test_scenes_are_legal_and_the_share_of_two_is_kept(rng):
    found = scenes(rng)
    assert all(world.is_legal(scene) for scene in found)
    assert 0.4 < np.mean([len(scene.things) == 2 for scene in found]) < 0.6


@pytest.mark.parametrize("style", ["filled", "outlined"])
def test_an_image_shows_its_colours(rng, style):
    image = world.draw(CIRCLE, rng, style).astype(int)
    assert image.shape == (64, 64, 3)
    near = {name: np.abs(image - rgb).max(2) < 30 for name, rgb in _palette().items()}
    assert near["teal"].mean() > 0.85
    assert 0.01 < near["white"].mean() < 0.1
    assert near["white"][:, :32].sum() == near["white"].sum()


def test_outlined_differs_from_filled_in_the_middle(rng):
    scene = Scene((Thing("square", "red", "large", "center"),), "white")
    filled, outlined = (
        world.draw(scene, rng, style)[32, 32].astype(int) for style in world.STYLES[:2]
    )
    assert np.abs(filled - world.COLOURS["red"]).max() < 30
    assert np.abs(outlined - world.BACKGROUNDS["white"]).max() < 30


def test_monochrome_has_no_colours(rng):
    image = world.draw(CIRCLE, rng, "monochrome")
    assert (image == image[..., :1]).all()
    assert np.ptp(image) > 50


def test_small_is_smaller_than_large(rng):
    area = {}
    for size in world.SIZES:
        image = world.draw(Scene((Thing("star", "red", size, "top"),), "white"), rng)
        area[size] = (image[:, :, 1] < 150).sum()
    assert area["large"] > 2 * area["small"]


def test_the_same_seed_draws_the_same_image():
    first, second = (world.draw(PAIR, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)


def test_canonical_prompts():
    assert world.prompt(CIRCLE) == "a small white circle on the left on a teal background"
    assert world.prompt(CIRCLE, frozenset({"background"})) == "a circle on a teal background"
    assert world.prompt(PAIR) == "a red circle beside a blue square on a white background"
    assert world.prompt(PAIR, frozenset({"colour"})) == "a red circle and a blue square"
    orange = Scene((Thing("star", "orange", "large", "center"),), "black")
    assert world.prompt(orange, frozenset({"colour"})) == "an orange star"


def test_parse_reads_every_canonical_prompt_back(rng):
    for scene in scenes(rng):
        assert world.parse(world.prompt(scene)) == world.attributes(scene)


def test_captions_say_nothing_wrong_and_everything_when_full(rng):
    for scene in scenes(rng, 2000):
        assert world.agrees(world.parse(world.caption(scene, rng)), scene)
        assert world.parse(world.caption(scene, rng, full=1.0)) == world.attributes(scene)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a Big STAR in the middle", {"shape": "star", "size": "large", "position": "center"}),
        ("Redora logo, circle on grey", {"shape": "circle"}),
        ("pink background, a tiny ring", {"shape": "ring", "size": "small"}),
        ("yellow backdrop, black ring", {"shape": "ring", "colour": "black"}),
    ],
)
def test_parse_reads_other_words(text, said):
    assert world.parse(text)["things"] == [said]


def test_parse_turns_below_into_above():
    said = world.parse("a blue square below a red circle on black")
    assert said["arrangement"] == "above"
    assert said["things"][0] == {"shape": "circle", "colour": "red"}
    assert said["background"] == "black"


@pytest.mark.parametrize("text", ["", "nothing of this world", "🦄 ロゴ", "on a", "red"])
def test_parse_survives_anything(text):
    assert world.parse(text)["things"] == []


def test_two_things_in_either_order_agree_unless_the_arrangement_is_said():
    assert world.agrees(world.parse("a blue square and a red circle"), PAIR)
    assert not world.agrees(world.parse("a blue square beside a red circle"), PAIR)
    assert not world.agrees(world.parse("a red circle"), PAIR)


def test_one_wrong_changes_one_attribute_legally(rng):
    kinds = set()
    for scene in scenes(rng):
        wrong = world.one_wrong(scene, rng)
        assert world.is_legal(wrong)
        assert not world.agrees(world.attributes(scene), wrong)
        kinds.add(_difference(scene, wrong))
    assert {"shape", "colour", "size", "position", "background", "arrangement", "swap"} == kinds


def _difference(scene: Scene, wrong: Scene) -> str:
    """The one attribute that differs; fails where there are more."""
    pairs = list(zip(scene.things, wrong.things, strict=True))
    found = [k for a, b in pairs for k in vars(a) if getattr(a, k) != getattr(b, k)]
    found += [k for k in ("background", "arrangement") if getattr(scene, k) != getattr(wrong, k)]
    if found == ["colour", "colour"]:
        assert {a.colour for a, _ in pairs} == {b.colour for _, b in pairs}
        return "swap"
    assert len(found) == 1
    return found[0]


def _palette() -> dict[str, world.Rgb]:
    return world.BACKGROUNDS | world.COLOURS
