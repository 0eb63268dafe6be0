"""`pressrun calibrate gate` on contests of drawn images that the shipped judge holds."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from examples.shapes.world.drawing import draw
from examples.shapes.world.saying import prompt
from examples.shapes.world.scene import one_wrong, sample_scene
from flows.runs.gate import calibrate_gate
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.models import model_digests
from pipeline.assemble.stores import open_run_folder
from pipeline.errors import RunError
from pipeline.job import Brief, Context
from pipeline.judging.contest import winner
from pipeline.profile import Profile
from pipeline.record import CandidateRecord, Status
from pipeline.settings import Settings, load_settings
from tests.harness import small_models
from tests.harness.jobs import make_job, make_outcome, make_spec, request_of

pytestmark = pytest.mark.slow

ROWS, RIVALS = 240, 4


@pytest.fixture(scope="module")
def settings(models_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    small_models.shipped(models_root)
    return load_settings(store=str(tmp_path_factory.mktemp("store")), models=models_root)


@pytest.fixture(scope="module")
def truth(settings: Settings) -> dict[str, bool]:
    """By job of run `demo`, truth of the winner: of its candidates some show the row's scene, the
    others one with a single fault.
    """
    profile, rng, truth = Profile.load("shapes"), np.random.default_rng(1), dict[str, bool]()
    spec = make_spec(
        profile=profile.model_dump(mode="json"), models=model_digests(settings, profile)
    )
    folder = open_run_folder(settings, "demo")
    folder.write_spec(spec)
    judge = Assembly(settings).ports(spec).judge
    for number in range(ROWS):
        scene, right = sample_scene(rng), rng.random(RIVALS) < rng.uniform(0, 0.6)
        images = [
            draw(scene if fine else one_wrong(scene, rng), rng) / np.float32(255) for fine in right
        ]
        said = prompt(scene)
        scores = judge.score(images, request_of(said))
        best = winner(scores)
        assert best is not None
        job = make_job(number, candidates=RIVALS, keywords=said, collection=str(number % 2))
        candidates = tuple(
            CandidateRecord(index=index, seed=index, score=score)
            for index, score in enumerate(scores)
        )
        outcome = make_outcome(
            job,
            brief=Brief(text=said, prompt=said),
            context=Context(),
            candidates=candidates,
            winner=best,
            status=Status.ACCEPTED if number % 3 else Status.BELOW_GATE,
        )
        folder.records.commit(outcome, images[best])
        truth[job.id] = bool(right[best])
    return truth


def reviewed(path: Path, labels: dict[str, bool]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["job", "right", "by"])
        rows.writerows([job, "yes" if right else "no", "me"] for job, right in labels.items())
    return path


def accepted(settings: Settings, threshold: float) -> Sequence[str]:
    found = open_run_folder(settings, "demo").records
    return [each.job_id for each in found.outcomes(found.ids()) if (each.score or 0) >= threshold]


def test_labels_find_a_threshold_and_its_figures(
    settings: Settings, truth: dict[str, bool], tmp_path: Path
) -> None:
    half = dict(list(truth.items())[: ROWS // 2])
    found = calibrate_gate("demo", reviewed(tmp_path / "r.csv", half), 0.9, 9, settings)
    assert found["candidates"] == {"least": RIVALS, "median": RIVALS, "most": RIVALS}
    assert (found["winners"], found["contests"]) == (ROWS // 2, {"best_of": ROWS // 2})
    kept = [job for job in accepted(settings, found["threshold"]) if job in half]
    assert found["accepted"] == len(kept)
    assert found["precision"] == pytest.approx(np.mean([half[job] for job in kept]), abs=1e-4)
    fresh = [truth[job] for job in accepted(settings, found["threshold"]) if job not in half]
    low, high = found["interval"]
    assert low - 0.05 <= np.mean(fresh) <= high + 0.05
    assert f"threshold = {found['threshold']:.5f}" in found["toml"]
    assert [row["collection"] for row in found["by_collection"]] == ["0", "1"]


def test_contrasts_find_it_without_labels(settings: Settings, truth: dict[str, bool]) -> None:
    found = calibrate_gate("demo", None, 0.95, ROWS, settings)
    kept = accepted(settings, found["threshold"])
    right = sum(truth[job] for job in kept)
    assert right / len(kept) == pytest.approx(0.95, abs=0.05)
    assert right > 0.8 * sum(truth.values())
    kinds = {row["contrast"]: row for row in found["contrasts"]}
    assert kinds.keys() >= {"another row", "colour", "shape", "size"}
    assert found["contrasted"] == ROWS / 2
    assert sum(row["judged"] for row in kinds.values()) == ROWS / 2 * RIVALS
    assert kinds["another row"]["accepted"] < 0.05
    assert found["wrong_share"] == pytest.approx(1 - sum(truth.values()) / ROWS, abs=0.15)


def test_few_rows_have_too_few_contrasts(settings: Settings, truth: dict[str, bool]) -> None:
    with pytest.raises(
        RunError, match="needs 30 winners and 30 contests of contrasts: there are 20 and 1"
    ):
        calibrate_gate("demo", None, 0.9, 20, settings)
