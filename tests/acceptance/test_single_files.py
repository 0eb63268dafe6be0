"""Checkpoints in one file, as people have them, from a job file to its images without a network."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.settings import Settings
from tests.harness import original_layout
from tests.harness.worked import work_through

pytestmark = pytest.mark.slow

PROFILE = """
[writer]
kind = "template"
[renderer]
kind = "diffusers"
model = "dream.safetensors"
[renderers.folder]
kind = "diffusers"
model = "dream"
[renderers.xl]
kind = "diffusers"
model = "xl.safetensors"
[renderers.xl-folder]
kind = "diffusers"
model = "xl"
[[judge]]
model = "open_clip"
[defaults]
candidates = 1
threshold = 0.0
width = 32
height = 32
steps = 2
guidance = 4.0
"""
MODELS = ("", "folder", "xl", "xl-folder")


def test_a_single_file_renders_as_its_folder_does(tmp_path: Path, models_root: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    (root / "open_clip").symlink_to(models_root / "open_clip")
    for name, pipe in {
        "dream": original_layout.stable_diffusion(),
        "xl": original_layout.stable_diffusion_xl(),
    }.items():
        pipe.save_pretrained(root / name)
        original_layout.save(pipe, root / f"{name}.safetensors")
    (tmp_path / "files.toml").write_text(PROFILE, encoding="utf-8")
    rows = "".join(f"a red circle,7,{name}\n" for name in MODELS)
    (tmp_path / "jobs.csv").write_text("keywords,seed,model\n" + rows, encoding="utf-8")
    settings = Settings(
        store=str(tmp_path / "out"), models=root, profile=str(tmp_path / "files.toml")
    )
    lines = work_through(tmp_path / "jobs.csv", "files", settings)
    assert [line["outcome"] for line in lines] == ["accepted"] * len(MODELS)
    images = [tmp_path / "out/runs/files" / line["image"] for line in lines]
    pixels = [np.asarray(Image.open(image), np.int16) for image in images]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    assert np.abs(pixels[2] - pixels[3]).max() <= 1
    assert np.abs(pixels[0] - pixels[2]).max() > 20
