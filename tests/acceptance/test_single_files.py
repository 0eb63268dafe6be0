"""Checkpoints in one file, as people have them, through the command line without a network."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.harness import original_layout
from tests.harness.commandline import answer, pressrun

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
    settings = {"PRESSRUN_MODELS": str(root), "PRESSRUN_PROFILE": "files.toml"}
    done = pressrun("run", "jobs.csv", "--json", cwd=tmp_path, settings=settings)
    report = answer(done)
    assert report["accepted"] == len(MODELS), done.stderr
    folder = tmp_path / report["folder"]
    lines = pq.read_table(folder / "manifest.parquet", columns=["row", "image"]).to_pylist()
    images = [folder / line["image"] for line in sorted(lines, key=lambda line: line["row"])]
    pixels = [np.asarray(Image.open(image), np.int16) for image in images]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    assert np.abs(pixels[2] - pixels[3]).max() <= 1
    assert np.abs(pixels[0] - pixels[2]).max() > 20
