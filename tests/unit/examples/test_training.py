"""The parts of the trainings that can go wrong without anyone seeing it in the loss."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from examples.shapes import world
from examples.shapes.training import common
from examples.shapes.training.renderer.text_encoder import QUESTIONS, answers, tokens
from examples.shapes.training.renderer.tokenizer import ENTRIES, LENGTH, new_tokenizer
from examples.shapes.training.renderer.unet import sample_times, share_of_two, singles
from examples.shapes.training.renderer.vae import Anchor, encode, fold_statistics, new_vae


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer(np.random.default_rng(0))


def test_tokenizer_takes_any_text_and_gives_it_back(tokenizer):
    assert len(tokenizer) == ENTRIES
    assert tokenizer.eos_token_id == ENTRIES - 1
    for text in ("a red circle", "心の🦄 naïve ﷺ", "\x00\u200b", ""):
        ids = tokens(tokenizer, [text])
        assert ids.shape == (1, LENGTH)
        assert ids.max() < ENTRIES
    assert tokenizer.decode(tokenizer("心 🦄 naïve").input_ids[1:-1]).strip() == "心 🦄 naïve"


def test_words_of_the_world_are_one_token(tokenizer):
    for word in (*world.SHAPES, *world.COLOURS, *world.BACKGROUNDS, *world.POSITIONS):
        assert len(tokenizer.tokenize(word)) == 1


def test_answers_follow_the_caption():
    said = dict(zip(QUESTIONS, answers("a blue square below a red circle"), strict=True))
    assert said["0 shape"] == world.SHAPES.index("circle")
    assert said["1 colour"] == list(world.COLOURS).index("blue")
    assert said["background"] == len(world.BACKGROUNDS)


def test_folding_makes_latents_standard_and_keeps_the_images():
    torch.manual_seed(0)
    vae = new_vae().eval()
    images = common.draw_many(
        common.sample_many(16, np.random.default_rng(0), 0.5), np.random.default_rng(0)
    )
    before = encode(vae, images)
    with torch.no_grad():
        decoded = vae.decode(before).sample
        fold_statistics(vae, before)
        after = encode(vae, images)
        again = vae.decode(after).sample
    assert after.mean((0, 2, 3)).abs().max() < 1e-3
    assert (after.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert torch.allclose(decoded, again, atol=1e-3)


def test_the_anchor_whitens_colours():
    rng = np.random.default_rng(0)
    images = common.to_unit(common.draw_many(common.sample_many(64, rng, 0.5), rng))
    targets = Anchor(images)(images).permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(torch.cov(targets), torch.eye(3), atol=1e-2)


def test_times_cover_all_strata_in_random_order():
    torch.manual_seed(0)
    times = sample_times(32)
    assert times.min() >= 0
    assert times.max() <= 999
    strata = ((times.double() / 1000) ** (1 / 0.85) * 32).round(decimals=1).floor()
    assert len(set(strata.tolist())) > 28
    assert not torch.equal(times, times.sort().values)


def test_schedule_ends_at_zero_and_two_object_scenes_come_later():
    rates = [common.warmup_cosine(p) for p in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[0] < 0.1
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert share_of_two(0) < share_of_two(1)


def test_budget_counts_steps():
    seen = list(common.Budget(0, steps=4))
    assert seen == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]


def test_more_small_things_than_large():
    sizes = [scene.things[0].size for scene in singles(50, np.random.default_rng(0))]
    assert len(sizes) == 50
    assert sizes.count("small") == 30


def test_average_forgets_the_random_start():
    model = torch.nn.Linear(1, 1, bias=False)
    average = common.moving_average(model, 0.999)
    for value in [100.0] + [1.0] * 200:
        model.weight.data.fill_(value)
        average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(1, abs=0.1)


def test_halved_files_hold_half_precision(tmp_path):
    common.save_half(new_vae(), tmp_path / "vae")
    weights = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float16}
