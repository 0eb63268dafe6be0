"""The umpire's labels, its readings and its file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from examples.shapes import umpire, world
from examples.shapes.training.umpire import HIDDEN, WIDTHS, save

ONE = world.Scene((world.Thing("star", "red", "small", "left"),), "teal")
TWO = world.Scene((world.Thing("ring", "blue"), world.Thing("heart", "white")), "black", "above")


def as_read(row: list[int]) -> world.Scene:
    """The scene that perfect logits for these labels are read as."""
    return umpire._scene(dict(zip(umpire.TRAITS, [max(i, 0) for i in row], strict=True)))


def test_labels_are_read_back_as_the_scene() -> None:
    assert as_read(umpire.labels(ONE)) == ONE
    assert as_read(umpire.labels(TWO)) == TWO


def test_a_spoiled_thing_has_no_shape() -> None:
    read = as_read(umpire.labels(TWO, (False, True)))
    assert [thing.shape for thing in read.things] == ["ring", umpire.NONE]
    assert not umpire.confirms(read, world.prompt(TWO))


def test_only_what_a_prompt_says_must_be_shown() -> None:
    assert umpire.confirms(ONE, "a red star")
    assert umpire.confirms(ONE, world.prompt(ONE))
    assert not umpire.confirms(ONE, "a large red star")
    assert not umpire.confirms(TWO, "a blue heart above a white ring")


def test_a_saved_umpire_reads_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = umpire.Umpire(WIDTHS, HIDDEN).eval()
    save(before, tmp_path)
    images = np.stack([world.draw(s, np.random.default_rng(1)) for s in (ONE, TWO)])
    after = umpire.load(tmp_path)
    pixels = umpire.to_pixels(images)
    for name, logits in after(pixels).items():
        assert torch.allclose(logits, before(pixels)[name], atol=5e-3)
    assert len(after.read(images)) == 2
    assert (tmp_path / "umpire.safetensors").stat().st_size < 1_000_000


def test_a_file_without_a_weight_is_refused(tmp_path: Path) -> None:
    save(umpire.Umpire(WIDTHS, HIDDEN), tmp_path)
    file = tmp_path / "umpire.safetensors"
    weights = load_file(file)
    del weights["stages.0.0.weight"]
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"lacks stages\.0\.0\.weight"):
        umpire.load(tmp_path)
