"""What is particular to the CLIP judge."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.judging import clip
from pipeline.judging.clip import ClipJudge
from pipeline.judging.pieces import pieces
from pipeline.profile import JudgeProfile, Profile
from tests.harness import small_models

ONE, OTHER = "a red circle on a white background.", "a blue star on a black background."


@pytest.fixture(scope="module")
def profile() -> JudgeProfile:
    return Profile.load("shapes").judge.model_copy(update={"slope": 20.0, "offset": -7.0})


@pytest.fixture(scope="module")
def judge(models_root: Path, profile: JudgeProfile) -> ClipJudge:
    return ClipJudge(small_models.shipped(models_root), profile)


def test_a_text_fits_up_to_the_models_context(judge: ClipJudge) -> None:
    room = judge._tokenizer.context_length
    # each "a" is one token, between the two that begin and end a text
    assert judge._fits("a " * (room - 2))
    assert not judge._fits("a " * (room - 1))
    assert not judge._fits("a " * (3 * room))


def test_a_long_text_stands_for_the_mean_of_its_pieces(judge: ClipJudge) -> None:
    text = " ".join([ONE] * 5 + [OTHER] * 5)
    parts = pieces(text, judge._fits)
    assert len(parts) > 1
    with torch.inference_mode():
        embedded = judge._embed_pieces(parts).numpy().mean(0)
        judge._embed_texts({text})
    assert np.allclose(judge._texts[text], embedded / np.linalg.norm(embedded), atol=1e-5)


def test_the_chance_follows_the_calibration(judge: ClipJudge) -> None:
    image = np.random.default_rng(0).random((64, 64, 3), np.float32)
    (score,) = judge.score([image], ONE)
    assert score.calibrated == pytest.approx(1 / (1 + np.exp(7 - 20 * score.raw)))


def test_only_the_latest_texts_are_kept(judge: ClipJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "TEXTS_KEPT", 3)
    image = np.random.default_rng(0).random((64, 64, 3), np.float32)
    for text in ("a", "b", "c", "a", "d"):
        judge.score([image], text)
    assert list(judge._texts) == ["c", "a", "d"]
