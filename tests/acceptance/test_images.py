"""A brand's own images steer the render, from the ingest of a folder to a receipt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.shapes import umpire, world
from flows.runs.knowledge import ingest_path
from flows.runs.reproduce import reproduce_record
from pipeline.errors import RunError
from pipeline.record import Outcome
from pipeline.settings import Settings
from tests.harness.worked import work_through

pytestmark = pytest.mark.slow

MODELS = Path("examples/shapes/models").resolve()
JOBS = """keywords,collection,references,reference_scale,passages,candidates,threshold,seed,rounds
a large circle on a gray background,reds,2,0.8,0,4,0,3,1
a large circle on a gray background,blues,2,0.8,0,4,0,3,1
a large circle on a gray background,blues,9,0.8,0,4,0,3,1
a large red star on a gray background,blues,1,0.8,0,1,1,3,2
"""


def settings(folder: Path) -> Settings:
    return Settings(store=str(folder / "out"), home=folder / ".pressrun")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two collections of images without a word, ingested; and the run of a job file."""
    folder, rng = tmp_path_factory.mktemp("desk"), np.random.default_rng(0)
    for colour in ("red", "blue"):
        looks = folder / f"{colour}s"
        looks.mkdir()
        for number, shape in enumerate(("star", "heart", "cross", "ring")):
            scene = world.Scene((world.Thing(shape, colour, "large", "center"),), "gray")
            Image.fromarray(world.draw(scene, rng)).save(looks / f"{number}.png")
        assert ingest_path(looks, looks.name, settings(folder))["added"] == 4
    (folder / "jobs.csv").write_text(JOBS)
    return folder


@pytest.fixture(scope="module")
def lines(workdir: Path) -> list[dict[str, Any]]:
    """The run's manifest."""
    lines = work_through(workdir / "jobs.csv", "looks", settings(workdir))
    assert [line["outcome"] for line in lines] == ["accepted", "accepted", "invalid", "below_gate"]
    return lines


def test_the_colour_follows_the_collection(workdir: Path, lines: list[dict[str, Any]]) -> None:
    sees = umpire.load(MODELS / "umpire")
    images = [
        np.asarray(Image.open(workdir / "out/runs/looks" / lines[n]["image"])) for n in (0, 1)
    ]
    read = sees.read(np.stack(images))
    assert [scene.things[0].colour for scene in read] == ["red", "blue"]


def test_the_receipt_names_the_images_and_makes_the_winner_again(
    workdir: Path, lines: list[dict[str, Any]]
) -> None:
    record = Path("out/runs/looks/records", f"{lines[0]['job_id']}.json")
    outcome = Outcome.model_validate_json((workdir / record).read_text())
    for reference in outcome.context.references:
        assert (reference.scale, reference.source[-4:]) == (0.8, ".png")
        assert (workdir / "out" / reference.image).exists()
    assert len(outcome.context.references) == 2
    assert reproduce_record(f"looks/{outcome.job_id}", settings(workdir), None)["equal"]
    (workdir / "out" / outcome.context.references[0].image).unlink()
    with pytest.raises(RunError, match="is gone"):
        reproduce_record(f"looks/{outcome.job_id}", settings(workdir), None)


def test_a_second_rounds_winner_is_made_again(workdir: Path, lines: list[dict[str, Any]]) -> None:
    record = workdir / "out/runs/looks/records" / f"{lines[3]['job_id']}.json"
    outcome = Outcome.model_validate_json(record.read_text())
    (refinement,) = outcome.refinements
    assert len(outcome.candidates) == 2
    (found,) = refinement.references
    assert found.id not in {each.id for each in outcome.context.references}
    assert outcome.winner == refinement.first
    assert reproduce_record(f"looks/{outcome.job_id}", settings(workdir), None)["equal"]
