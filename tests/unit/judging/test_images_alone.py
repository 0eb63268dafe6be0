"""Judges that read no text: likeness to a job's images, and looks."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.errors import ConfigError, ModelError, NothingToJudge
from pipeline.judging.aesthetic import AestheticJudge, AestheticJudgeProfile, read_head
from pipeline.judging.reference import ReferenceJudge, ReferenceJudgeProfile, likenesses
from pipeline.models import digest, references, verify
from pipeline.models.clip import Clip
from pipeline.profile import Profile
from tests.harness import small_models
from tests.harness.jobs import request_of

RNG = np.random.default_rng(0)
IMAGE = RNG.random((64, 64, 3), np.float32)
NUMBERS = "slope = 20\noffset = -10\n"


def write_head(folder: Path, **tensors: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "head.safetensors")
    return folder


def profile_with(tmp_path: Path, text: str) -> Profile:
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "shapes"\n{text}', encoding="utf-8")
    return Profile.load(str(path))


def test_likeness_is_the_mean_cosine_of_all_pairs() -> None:
    seen, shown = RNG.normal(size=(3, 5)), RNG.normal(size=(4, 5))
    cosines = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in shown] for a in seen]
    found = likenesses(seen.astype(np.float32), [tuple(each) for each in shown * 11.3])
    assert found == pytest.approx(np.mean(cosines, axis=1), abs=1e-5)


def test_a_job_without_images_is_not_for_the_judge_of_likeness(models_root: Path) -> None:
    profile = ReferenceJudgeProfile(encoder="open_clip", slope=1, offset=0)
    judge = ReferenceJudge(small_models.shipped(models_root), profile)
    with pytest.raises(NothingToJudge, match="no image was named or retrieved"):
        judge.score([IMAGE], request_of("a red circle"))


def test_likeness_is_measured_by_the_encoder_of_the_knowledge_base(tmp_path: Path) -> None:
    listed = f'[[judge]]\n[[judge]]\nkind = "reference"\n{NUMBERS}'
    profile = profile_with(tmp_path, listed)
    judge = profile.judge[1].beside(profile.retrieval)
    assert isinstance(judge, ReferenceJudgeProfile)
    assert judge.encoder == profile.retrieval.image_encoder == "open_clip"
    assert {role for role in references(profile) if "judge" in role} == {"judge"}
    with pytest.raises(ConfigError, match=r"set retrieval\.image_encoder"):
        profile_with(tmp_path, f'{listed}[retrieval]\nimage_encoder = ""\n')
    with pytest.raises(ConfigError, match=r"its encoder has to be retrieval\.image_encoder"):
        profile_with(tmp_path, f'{listed}encoder = "other"\n')


def test_a_mark_is_linear_in_the_embedding(models_root: Path, tmp_path: Path) -> None:
    models = small_models.shipped(models_root)
    (seen,) = Clip(models, "open_clip", "judge").encode_images([IMAGE])
    weight, bias = RNG.normal(size=(1, seen.size)).astype(np.float32), np.float32([5.5])
    head = write_head(tmp_path / "head", **{"linear.weight": weight, "linear.bias": bias})
    profile = AestheticJudgeProfile(model="open_clip", head=str(head), slope=2, offset=-10)
    (score,) = AestheticJudge(models, profile).score([IMAGE], request_of("anything"))
    mark = weight[0] @ seen / np.linalg.norm(seen) + 5.5
    assert score.raw == pytest.approx(mark, abs=1e-4)
    assert score.calibrated == pytest.approx(1 / (1 + np.exp(10 - 2 * score.raw)))


def test_the_head_is_checked_and_hashed_like_any_model(tmp_path: Path) -> None:
    listed = f'[[judge]]\n[[judge]]\nkind = "aesthetic"\nmodel = "m"\nhead = "h"\n{NUMBERS}'
    named = references(profile_with(tmp_path, listed))
    assert (named["judge::aesthetic"], named["aesthetic_head::aesthetic"]) == ("m", "h")
    head = write_head(tmp_path / "head", weight=np.ones(8, np.float32), bias=np.ones(1, np.float32))
    verify(head, "aesthetic_head::aesthetic")
    first = digest(head, "aesthetic_head")
    write_head(head, weight=np.zeros(8, np.float32), bias=np.ones(1, np.float32))
    assert digest(head, "aesthetic_head") != first
    (head / "head.safetensors").unlink()
    (head / "head.pth").write_bytes(b"")
    with pytest.raises(ModelError, match="is a pickle"):
        verify(head, "aesthetic_head")


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"weight": np.ones((1, 8))}, "has to hold a weight and a bias alone, and holds weight"),
        (
            {"weight": np.ones((1, 8)), "bias": np.ones(1), "more": np.ones(1)},
            "holds bias, more, weight",
        ),
        ({"weight": np.ones((1, 9)), "bias": np.ones(1)}, r"shapes \[1, 9\] and \[1\]"),
        ({"weight": np.ones((1, 8)), "bias": np.ones(2)}, r"have to be \[1, 8\] and \[1\]"),
        ({"weight": np.full((1, 8), np.nan), "bias": np.ones(1)}, "not finite"),
    ],
)
def test_another_head_is_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], problem: str
) -> None:
    made = {name: values.astype(np.float32) for name, values in tensors.items()}
    with pytest.raises(ModelError, match=problem):
        read_head(write_head(tmp_path / "head", **made), 8)
