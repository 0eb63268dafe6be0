"""A tokenizer that knows no words is refused: the model would be asked nothing, in silence."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.models import Models, contents, verify
from pipeline.profile import DiffusersProfile, Profile
from tests.harness import small_models

LOADS: dict[str, Callable[[Models, str], object]] = {
    "writer": lambda models, _: models.language_model(Profile.load("shapes").writer),
    "embedding": lambda models, name: models.text_encoder(name),
    "judge": lambda models, name: models.clip(name, "judge"),
    "renderer": lambda models, name: models.diffusion(DiffusersProfile(model=name)),
}


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("writer", "."),
        ("embedding", "."),
        ("judge", "."),
        ("renderer", "tokenizer"),
        ("renderer", "tokenizer_3"),
    ],
)
def test_a_model_without_a_vocabulary_is_refused(
    role: str, part: str, tmp_path: Path, models_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the check, and again where the library made an empty one."""
    name = {"judge": "open_clip", "renderer": "sd3"}.get(role, "writer")
    folder = tmp_path / name
    if role == "renderer":
        small_models.save("sd3", folder)
    else:
        shutil.copytree(models_root / name, folder)
    verify(folder, role)
    assert LOADS[role](Models(tmp_path, "cpu"), name)
    (folder / part / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        verify(folder, role)
    monkeypatch.setattr(contents, "check_vocabulary", lambda _: None)
    with pytest.raises(ModelError, match=r"knows no words|cannot be loaded"):
        LOADS[role](Models(tmp_path, "cpu"), name)
