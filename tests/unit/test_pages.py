"""The job files of the documentation, rendered by the small models."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from examples.shapes import world
from flows.runs.open import asked_for
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.jobs import open_jobs
from pipeline.job import Job
from pipeline.jobfile.reader import Overrides
from pipeline.record import KEPT, Outcome
from pipeline.run import run_job
from pipeline.settings import Settings, load_settings

DOCS = Path("docs").resolve()
BLOCK = re.compile(r"```csv\n(.*?)```", re.DOTALL)
PAGES = {
    path.stem: blocks
    for path in sorted(Path("docs").rglob("*.md"))
    if (blocks := BLOCK.findall(path.read_text(encoding="utf-8")))
}
PROFILE = """
extends = "shapes"
writer = {{ kind = "template" }}
renderer.embeddings = "{folder}/embeddings"
renderer.weighted = true
defaults = {{ candidates = 1, steps = 4 }}
renderers.draft = {{ kind = "diffusers", model = "diffusion", unet = "draft-unet" }}
"""
"""The folders and renderers that the pages' rows name."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images and embeddings that the pages' rows name, by their names there."""
    made = tmp_path_factory.mktemp("pages")
    (made / "profile.toml").write_text(PROFILE.format(folder=made), encoding="utf-8")
    (made / "photos").mkdir()
    square, half = Image.new("RGB", (64, 64), "teal"), Image.new("L", (64, 64))
    square.paste("white", (16, 16, 48, 48))
    half.paste(255, (0, 0, 32, 64))
    square.save(made / "photos" / "square.png")
    half.save(made / "photos" / "left-half.png")
    left = world.Scene((world.Thing("circle", "blue", "large", "left"),), "yellow")
    Image.fromarray(world.draw(left, np.random.default_rng(0))).save(made / "left.png")
    (made / "embeddings").mkdir()
    for seed, name in enumerate(("inklines", "badshapes")):
        vectors = torch.randn(2, 96, generator=torch.Generator().manual_seed(seed))
        save_file({"emb_params": vectors}, made / "embeddings" / f"{name}.safetensors")
    return made


@pytest.fixture(scope="module")
def assembly(folder: Path) -> tuple[Settings, Assembly]:
    """One for all pages, so that each model is loaded once."""
    settings = load_settings(
        profile=str(folder / "profile.toml"), store=str(folder / "out"), home=folder / "home",
        device="cpu",
    )  # fmt: skip
    return settings, Assembly(settings)


def rendered(
    jobs: str, name: str, folder: Path, settings: Settings, assembly: Assembly
) -> list[Outcome]:
    """The outcomes of a job file, each row of which has to be a job."""
    path, overrides = folder / f"{name}.csv", Overrides()
    path.write_text(jobs, encoding="utf-8")
    run_folder = assembly.run_folder(name)
    spec = asked_for(path, overrides, settings, run_folder)
    run_folder.write_spec(spec)
    ports, warnings = assembly.ports(spec), list[str]()
    rows = list(
        open_jobs(path, overrides, settings, lambda n: warnings.append(n.reason), run_folder.store)
    )
    assert not warnings
    assert [row for row in rows if not isinstance(row, Job)] == []
    return [run_job(row, ports) for row in rows if isinstance(row, Job)]


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_rows_are_rendered_each_as_another_image(
    page: str, folder: Path, assembly: tuple[Settings, Assembly]
) -> None:
    for number, jobs in enumerate(PAGES[page]):
        outcomes = rendered(jobs, f"{page}-{number}", folder, *assembly)
        assert {outcome.status for outcome in outcomes} <= KEPT
        assert [notice for outcome in outcomes for notice in outcome.notices] == []
        kept = {outcome.image.sha256 for outcome in outcomes if outcome.image}
        assert len(kept) == len(outcomes) > 0
