"""What is no image is told apart before a judge sees it."""

from io import BytesIO

import numpy as np
import pytest

from examples.shapes import world
from pipeline.job import ImageArray
from pipeline.media.checks import is_half_decoded, problem, repeated
from pipeline.media.image import decode, to_image


def image() -> ImageArray:
    return np.random.default_rng(0).random((32, 32, 3), np.float32)


def test_an_image_is_fine() -> None:
    assert problem(image()) == ""


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_spoils_an_image(value: float) -> None:
    spoiled = image()
    spoiled[3, 4, 1] = value
    assert problem(spoiled) == "it holds values that are not finite"


def test_an_all_black_image_is_invalid() -> None:
    assert problem(np.zeros((32, 32, 3), np.float32)) == "it is all black"
    assert problem(np.full((32, 32, 3), 1 / 300, np.float32)) == "it is all black"


@pytest.mark.parametrize("level", [0.02, 0.5, 1.0])
def test_one_colour_is_blank_even_with_a_speckle(level: float) -> None:
    blank = np.full((64, 64, 3), level, np.float32)
    assert problem(blank) == "it is blank"
    blank[:2, :2] = 1 - level
    assert problem(blank) == "it is blank"


def test_shapes_in_any_single_channel_are_an_image() -> None:
    for channel in range(3):
        drawn = np.full((64, 64, 3), 0.5, np.float32)
        drawn[20:30, 20:30, channel] = 0.6
        assert problem(drawn) == ""


def test_a_small_shape_is_an_image() -> None:
    drawn = np.full((64, 64, 3), 0.98, np.float32)
    drawn[30:36, 30:36] = 0.1
    assert problem(drawn) == ""


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 4), (0, 32, 3), (1, 32, 32, 3)])
def test_another_shape_is_named(shape: tuple[int, ...]) -> None:
    assert "not [" in problem(np.ones(shape, np.float32))


def photograph(side: int = 256) -> ImageArray:
    """Something with its own colours in each row."""
    steps = np.random.default_rng(3).normal(0, 0.02, (side, side, 3))
    found: ImageArray = (0.5 + np.cumsum(steps, 0)).clip(0, 1).astype(np.float32)
    return found


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_a_jpeg_whose_data_ends_in_the_middle_is_half_decoded(
    part: float, subsampling: str
) -> None:
    file = BytesIO()
    to_image(photograph()).save(file, "jpeg", subsampling=subsampling)
    whole = file.getvalue()
    cut = whole[: int(part * len(whole))] + b"\xff\xd9"
    assert is_half_decoded(decode(cut))
    assert not is_half_decoded(decode(whole))


def test_a_flat_band_is_no_half_decoded_image() -> None:
    band = photograph()
    for fill in (0, 0.3, 127 / 255, (0.5, 0.4, 0.5)):
        band[128:] = fill
        assert problem(band) == ""
        assert not is_half_decoded(band)
    grey = photograph()
    grey[131:] = 128 / 255  # within a block
    assert not is_half_decoded(grey)
    grey[128:] = 128 / 255
    assert is_half_decoded(grey)
    grey[130:252, 90:130] = 0.9  # something stands before it
    assert not is_half_decoded(grey)
    assert not is_half_decoded(np.full((64, 64, 3), 128 / 255, np.float32))


def test_shapes_on_plain_backgrounds_are_images() -> None:
    rng = np.random.default_rng(0)
    styles = ["filled", "outlined"] * 300
    drawn = [world.draw(world.sample_scene(rng), rng, style) / np.float32(255) for style in styles]
    assert [problem(each) for each in drawn] == [""] * len(drawn)


def test_an_image_is_known_again() -> None:
    first, second, small = photograph(), image(), image()[:16]
    noisy = (first + np.random.default_rng(1).uniform(-1, 1, first.shape) / 255).astype(np.float32)
    assert repeated(noisy, [None, second, small, first]) == 3
    changed = first.copy()
    changed[101:104, 57:60] += 0.02
    assert repeated(changed, [first]) is None
    assert repeated(first, []) is None
