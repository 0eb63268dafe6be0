"""What is particular to the CLIP judge."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import telemetry
from pipeline.judging import clip
from pipeline.judging.clip import ClipJudge, pieces
from pipeline.models.clip import Clip
from pipeline.profile import ClipJudgeProfile, Profile
from tests.harness import small_models
from tests.harness.jobs import request_of

ONE, OTHER = "a red circle on a white background.", "a blue star on a black background."


@pytest.fixture(scope="module")
def profile() -> ClipJudgeProfile:
    return Profile.load("shapes").judge[0].model_copy(update={"slope": 20.0, "offset": -7.0})


@pytest.fixture(scope="module")
def judge(models_root: Path, profile: ClipJudgeProfile) -> ClipJudge:
    return ClipJudge(small_models.shipped(models_root), profile)


IMAGE = np.random.default_rng(0).random((64, 64, 3), np.float32)


def test_a_long_text_stands_for_the_mean_of_its_pieces(
    judge: ClipJudge, models_root: Path, profile: ClipJudgeProfile
) -> None:
    text = " ".join([ONE] * 5 + [OTHER] * 5)
    clip = Clip(small_models.shipped(models_root), profile.model, "judge")
    parts = pieces(text, clip.reads_whole)
    assert len(parts) > 1
    read, (seen,) = clip.encode(parts, [IMAGE])
    mean = (read / np.linalg.norm(read, axis=1, keepdims=True)).mean(0)
    cosine = mean @ seen / np.linalg.norm(mean) / np.linalg.norm(seen)
    (score,) = judge.score([IMAGE], request_of(text))
    assert score.raw == pytest.approx(cosine, abs=1e-5)


def test_the_chance_follows_the_calibration(judge: ClipJudge) -> None:
    (score,) = judge.score([IMAGE], request_of(ONE))
    assert score.calibrated == pytest.approx(1 / (1 + np.exp(7 - 20 * score.raw)))


def test_only_the_latest_texts_are_kept(
    models_root: Path, profile: ClipJudgeProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip, "TEXTS_KEPT", 3)
    judge = ClipJudge(small_models.shipped(models_root), profile)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(telemetry, "texts", lambda role, cached, new: seen.append((cached, new)))
    for text in ("a", "b", "c", "a", "d", "a", "b"):
        judge.score([IMAGE], request_of(text))
    assert [cached for cached, _ in seen] == [0, 0, 0, 1, 0, 1, 0]
    assert all(cached + new == 1 for cached, new in seen)
