"""The OpenCLIP wrapper against OpenCLIP itself, with a shipped model."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.media.image import to_image
from pipeline.models import Models
from pipeline.models.clip import OpenClip
from pipeline.profile import Profile
from tests.harness import small_models

TEXTS = ["a red circle", "a blue star on a black background", "teal"]
IMAGES = [np.random.default_rng(n).random((64, 64, 3), np.float32) for n in range(5)]
MODEL = Profile.load("shapes").judge.model


@pytest.fixture(scope="module")
def models(models_root: Path) -> Models:
    return small_models.shipped(models_root)


@pytest.fixture(scope="module")
def clip(models: Models) -> OpenClip:
    return OpenClip(models, MODEL, "judge", batch=2)


def test_both_towers_give_what_open_clip_gives(clip: OpenClip, models: Models) -> None:
    model, preprocess, tokenizer = models.clip(MODEL, "judge")
    with torch.inference_mode():
        texts = model.encode_text(tokenizer(TEXTS)).numpy()
        images = model.encode_image(torch.stack([preprocess(to_image(i)) for i in IMAGES])).numpy()
    assert np.abs(clip.encode_texts(TEXTS) - texts).max() < 1e-4
    assert np.abs(clip.encode_images(IMAGES) - images).max() < 1e-4
    both = clip.encode(TEXTS, IMAGES)
    assert np.abs(both[0] - texts).max() < 1e-4
    assert np.abs(both[1] - images).max() < 1e-4


def test_pixels_are_floats_while_another_model_is_loaded(clip: OpenClip) -> None:
    preprocess = clip._loaded[1]
    torch.set_default_dtype(torch.bfloat16)
    try:
        seen = [preprocess(to_image(image)) for image in IMAGES]
    finally:
        torch.set_default_dtype(torch.float32)
    assert {each.dtype for each in seen} == {torch.float32}


def test_every_thread_gets_its_own(clip: OpenClip) -> None:
    calls = [(TEXTS[n % 3 :], IMAGES[n % 5 :]) for n in range(20)]
    alone = [clip.encode(*call) for call in calls]
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(lambda call: clip.encode(*call), calls))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one[0] - other[0]).max() < 1e-4
        assert np.abs(one[1] - other[1]).max() < 1e-4


def test_nothing_gives_nothing(clip: OpenClip) -> None:
    assert clip.encode_texts([]).shape == (0, clip.size)
    assert clip.encode_images([]).shape == (0, clip.size)


def test_a_text_is_read_whole_up_to_the_models_context(clip: OpenClip, models: Models) -> None:
    room = models.clip(MODEL, "judge")[2].context_length
    # each "a" is one token, between the two that begin and end a text
    assert clip.reads_whole("a " * (room - 2))
    assert not clip.reads_whole("a " * (room - 1))
    assert not clip.reads_whole("a " * (3 * room))
