"""A model that cannot be used stops the run before any job starts."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.commandline import pressrun_here

pytestmark = pytest.mark.slow


def remove(folder: Path) -> None:
    shutil.rmtree(folder / "open_clip")


def pickle_only(folder: Path) -> None:
    weights = folder / "writer" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))


def truncate(folder: Path) -> None:
    weights = folder / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [(remove, "open_clip"), (pickle_only, "safetensors"), (truncate, "truncated")],
)
def test_a_broken_model_is_told_before_any_job(
    damage: Callable[[Path], None], complaint: str, tmp_path: Path, models_root: Path
) -> None:
    for name in ("writer", "open_clip", "diffusion", "image-adapter", "control-edges"):
        shutil.copytree(models_root / name, tmp_path / "models" / name)
    damage(tmp_path / "models")
    (tmp_path / "jobs.csv").write_text("keywords\nred circle\n", encoding="utf-8")
    done = pressrun_here(
        "run", "jobs.csv", cwd=tmp_path, settings={"PRESSRUN_MODELS": str(tmp_path / "models")}
    )
    assert done.returncode == 1
    assert complaint in done.stderr
    assert not (tmp_path / "out").exists()
