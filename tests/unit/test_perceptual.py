"""Perceptual hashes are near each other for images that look alike, and for no others."""

import numpy as np
import pytest

from examples.shapes.world import draw, one_wrong, sample_scene
from flows.runs.near_duplicates import BITS, LEVELS
from pipeline.job import ImageArray
from pipeline.media.image import decode, encode, to_array, to_image
from pipeline.media.perceptual import DIGITS, perceptual_hash

DRAWS = np.random.default_rng(5)
SCENES = [sample_scene(DRAWS) for _ in range(60)]


def drawn(scene: object) -> ImageArray:
    return (np.asarray(draw(scene, DRAWS), np.float32) / 255).astype(np.float32)  # type: ignore[arg-type]


IMAGES = [drawn(scene) for scene in SCENES]


def alike(one: ImageArray, other: ImageArray) -> bool:
    first, second = (bytes.fromhex(perceptual_hash(each)) for each in (one, other))
    forms = int.from_bytes(first[:8]) ^ int.from_bytes(second[:8])
    colours = np.abs(np.subtract(list(first[8:]), list(second[8:])))
    return forms.bit_count() <= BITS and bool(colours.max() <= LEVELS)


def test_a_hash_is_forty_digits() -> None:
    assert len(perceptual_hash(IMAGES[0])) == DIGITS == 40
    assert int(perceptual_hash(IMAGES[0]), 16)


def test_a_coded_a_noisy_and_a_larger_copy_are_alike() -> None:
    found = list[bool]()
    for image in IMAGES:
        noise = DRAWS.normal(0, 2 / 255, image.shape)
        found += [
            alike(image, decode(encode(image, "jpeg", ""))),
            alike(image, np.clip(image + noise, 0, 1).astype(np.float32)),
            alike(image, to_array(to_image(image).resize((256, 256)))),
        ]
    assert np.mean(found) > 0.97


def test_an_image_with_something_else_in_it_is_not_alike() -> None:
    others = [drawn(one_wrong(scene, DRAWS)) for scene in SCENES]
    assert np.mean([alike(*pair) for pair in zip(IMAGES, others, strict=True)]) < 0.03


@pytest.mark.parametrize("colour", [(0.16, 0.31, 0.84), (0.16, 0.59, 0.25), (0.9, 0.5, 0.1)])
def test_forms_of_another_colour_are_not_alike(colour: tuple[float, float, float]) -> None:
    rows, columns = np.mgrid[:64, :64]
    inside = ((rows - 32) ** 2 + (columns - 32) ** 2 < 16**2)[..., None]
    red, other = (
        np.where(inside, np.float32(each), np.float32(0.98)).astype(np.float32)
        for each in ((0.84, 0.16, 0.18), colour)
    )
    assert not alike(red, other)
