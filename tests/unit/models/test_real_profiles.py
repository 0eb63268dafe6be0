"""Judges and writers of the profiles for real models, with tiny models of the same classes."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.judging.clip import ClipJudge
from pipeline.models import Models, verify
from pipeline.profile import Profile
from tests.harness import small_models
from tests.harness.jobs import request_of


@pytest.mark.parametrize("name", ["sd15", "sd35"])
def test_the_profiles_judge_loads_and_scores(name: str, tmp_path: Path) -> None:
    judge = Profile.load(name).judge[0]
    small_models.save_judge(tmp_path / judge.model)
    verify(tmp_path / judge.model, "judge")
    judge = ClipJudge(Models(tmp_path, "cpu"), judge)
    images = np.random.default_rng(0).random((3, 40, 60, 3), np.float32)
    scores = judge.score(list(images), request_of("A red circle. " * 40))
    assert len({score.raw for score in scores}) == 3
    for score in scores:
        chance = 1 / (1 + np.exp(12 - 50 * score.raw))
        assert score.calibrated == pytest.approx(chance, abs=1e-6)


EXAMPLES = Path("docs/judging.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["pickscore", "hpsv2.1"])
def test_a_preset_loads_and_scores(name: str, tmp_path: Path) -> None:
    """PickScore is in the format of transformers, HPSv2.1 in OpenCLIP's."""
    path = tmp_path / "mine.toml"
    found = [text for text in re.findall(r"```toml\n(.*?)```", EXAMPLES, re.DOTALL) if name in text]
    path.write_text(found[0], encoding="utf-8")
    (judge,) = Profile.load(str(path)).judge
    assert judge.name == name
    if name == "pickscore":
        small_models.save_towers("clip", tmp_path / judge.model)
    else:
        small_models.save_judge(tmp_path / judge.model)
    verify(tmp_path / judge.model, f"judge::{name}")
    seen = list(np.random.default_rng(0).random((2, 40, 60, 3), np.float32))
    scores = ClipJudge(Models(tmp_path, "cpu"), judge).score(seen, request_of("A red circle."))
    middle = -judge.offset / judge.slope
    for score in scores:
        assert (score.calibrated > 0.5) == (score.raw > middle)


def test_the_profiles_writer_loads_and_writes(tmp_path: Path) -> None:
    profile = Profile.load("sd15").writer
    small_models.save_writer(tmp_path / profile.model)
    verify(tmp_path / profile.model, "writer")
    model, tokenizer = Models(tmp_path, "cpu").language_model(profile)
    assert str(model.dtype) == "torch.bfloat16"
    chats = [[{"role": "user", "content": text}] for text in ("a circle", "a larger circle")]
    asked = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    written = model.generate(**asked, max_new_tokens=5, do_sample=False)
    assert written.shape[0] == 2
    assert written.shape[1] > asked["input_ids"].shape[1]
    assert (asked["attention_mask"][:, -1] == 1).all(), "it pads on the left"
