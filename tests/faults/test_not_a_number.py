"""Models that compute NaN: the small models, with real records."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.runs.open import open_run
from flows.runs.reconcile import reconcile
from pipeline.assemble.assembly import Assembly
from pipeline.job import Job
from pipeline.jobfile.reader import Overrides
from pipeline.models import Models
from pipeline.profile import Profile
from pipeline.record import Status
from pipeline.run import run_job
from pipeline.settings import Settings, load_settings

pytestmark = pytest.mark.slow

ROWS = 2
JOBS = """keywords,contest,candidates,steps,threshold,mode
a large red circle,{contest},3,4,0,keywords
a small blue star,{contest},3,4,0,keywords
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, models_root: Path) -> Settings:
    workdir = tmp_path_factory.mktemp("desk")
    return load_settings(
        store=str(workdir / "out"), home=workdir / "home", models=models_root, device="cpu"
    )


@pytest.fixture(scope="module")
def assembly(settings: Settings) -> Assembly:
    return Assembly(settings)


def decoder(models: Models, profile: Profile) -> Any:
    """The module that turns latents into images [n, 3, height, width]."""
    return models.diffusion(profile.renderer).vae.decoder


def eye(models: Models, profile: Profile) -> Any:
    """The module that turns the images of the judge into vectors [n, width]."""
    model, *_ = models.clip(profile.judge[0].model, "judge", profile.judge[0].dtype)
    return model.visual


@pytest.mark.parametrize("contest", ["best_of", "race"])
@pytest.mark.parametrize("every", [False, True], ids=["one", "all"])
@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (decoder, "it holds values that are not finite"),
        (eye, "the judge's answer is not a number"),
    ],
)
def test_a_candidate_with_nan_never_wins(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    settings: Settings,
    assembly: Assembly,
    part: Callable[[Models, Profile], Any],
    reason: str,
    every: bool,
    contest: str,
) -> None:
    """The first image of a job: the others go on. All: the job has failed, and says why."""
    (tmp_path / "jobs.csv").write_text(JOBS.format(contest=contest), encoding="utf-8")
    run_folder = assembly.run_folder(f"{part.__name__}-{contest}-{every}".lower())
    spec = open_run(tmp_path / "jobs.csv", Overrides(), settings, run_folder)
    ports = assembly.ports(spec)
    jobs = [row for row in run_folder.shards.read(spec.fingerprint, 1) if isinstance(row, Job)]

    spoilt = slice(None)

    def spoil(_module: Any, _given: Any, computed: Any) -> None:
        nonlocal spoilt
        computed[spoilt] = math.nan
        spoilt = slice(None) if every else slice(0)

    hook = part(assembly.models, settings.chosen_profile).register_forward_hook(spoil)
    request.addfinalizer(hook.remove)
    for job in jobs:
        spoilt = slice(None) if every else slice(1)
        outcome = run_job(job, ports)
        scores = [score for c in outcome.candidates for score in (c.score, *c.previews) if score]
        assert {score.reason for score in scores if not score.valid} == {reason}
        if every:
            assert outcome.status is Status.FAILED
            assert outcome.reason == f"no candidate is a valid image: {reason}"
        else:
            assert outcome.status is Status.ACCEPTED
            assert outcome.candidates[outcome.winner or 0].score in {s for s in scores if s.valid}
    report = reconcile(run_folder, spec, read_images=True, safe_age=0)
    assert (report.rows, report.lost, report.alarms) == (ROWS, 0, [])
    assert len(list(run_folder.listing("images/"))) == (0 if every else ROWS)
