"""Review files, and what `pressrun calibrate gate` makes of them with a run's records."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.runs.gate import calibrate_gate
from flows.runs.publish import publish
from flows.runs.reviews import Review, read_reviews
from pipeline.assemble.stores import open_run_folder
from pipeline.errors import RunError
from pipeline.job import ImageArray, Score, ScorePart
from pipeline.jobfile.identity import profile_digest
from pipeline.profile import Profile
from pipeline.record import CandidateRecord, Status
from pipeline.settings import Settings, load_settings
from tests.harness.jobs import make_job, make_outcome, make_spec

SHA = "0123456789ab"


def read(path: Path, text: str, name: str = "reviews.csv") -> dict[str, Review]:
    (path / name).write_text(text, encoding="utf-8")
    return dict(read_reviews(path / name, "demo").by_job)


def test_jobs_and_images_name_what_is_reviewed(tmp_path: Path) -> None:
    csv = (
        "sep=;\nnote;job;image;right\nx;a;;yes\n;demo/b;;No\n"
        f";;out/runs/demo/images/c-{SHA}.png;TRUE\n;;d-{SHA}.webp;0\n"
    )
    wanted = {
        "a": Review(True),
        "b": Review(False),
        "c": Review(True, SHA),
        "d": Review(False, SHA),
    }
    assert read(tmp_path, csv) == wanted
    lines = [
        {"job": "a", "right": True},
        {"run": "demo", "job": "b", "right": "no"},
        {"image": f"s3://bucket/runs/demo/images/c-{SHA}.png", "right": 1},
        {"image": f"images/d-{SHA}.webp", "right": False},
    ]
    jsonl = "\n\n".join(map(json.dumps, lines))
    assert read(tmp_path, jsonl, "reviews.jsonl") == wanted


def test_reviews_of_other_runs_are_counted_apart(tmp_path: Path) -> None:
    rows = f"a,,other,yes\nother/b,,,no\n,runs/other/images/c-{SHA}.png,,no\nd,,,no\n"
    (tmp_path / "r.csv").write_text("job,image,run,right\n" + rows, encoding="utf-8")
    found = read_reviews(tmp_path / "r.csv", "demo")
    assert (found.elsewhere, [*found.by_job]) == (3, ["d"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("job,right\na,yes\nb,maybe\n", "line 3: `right` is yes or no, and not 'maybe'"),
        ("job,right\na,yes\na,no\n", "line 3: job a is reviewed as right and as wrong"),
        ("job,right\n../x y,yes\n", "line 2: `job` is a job's id, and not 'x y'"),
        ("image,right\ncat.png,yes\n", "line 2: 'cat.png' is no image of a run's folder"),
        (f"job,image,right\na,b-{SHA}.png,yes\n", "image is of job b, and not of a"),
        ("job,verdict\na,yes\n", "no column `right`: there are job, verdict"),
        ('job,right\n"a,yes\n', "line 2: a double quote"),
    ],
)
def test_a_review_that_says_nothing_is_told_with_its_line(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(RunError, match=told):
        read(tmp_path, text)


def test_broken_json_and_a_missing_file_are_told(tmp_path: Path) -> None:
    for text, told in (('{"job": ', "line 1"), ("[1]", "line 1: it is no object")):
        with pytest.raises(RunError, match=told):
            read(tmp_path, text, "reviews.jsonl")
    with pytest.raises(RunError, match="No such file"):
        read_reviews(tmp_path / "none.csv", "demo")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(store=str(tmp_path / "store"))


def record(
    settings: Settings, image: ImageArray, count: int, seed: int, judges: int = 2
) -> dict[str, bool]:
    """Records of run `demo`, and which winners are right: the first judge knows it, the others
    guess, and all weigh the same.
    """
    rng, truth = np.random.default_rng(seed), dict[str, bool]()
    folder = open_run_folder(settings, "demo")
    names = [f"judge-{place}" for place in range(judges)]
    sections = [{"kind": "clip", "name": name, "model": "open_clip"} for name in names]
    profile = Profile.load("shapes").model_dump(mode="json") | {"judge": sections}
    folder.write_spec(make_spec(profile=profile))
    for number in range(count):
        right = bool(rng.random() < 0.6)
        odds = rng.normal(size=judges)
        odds[0] += 3 * right
        chances = 1 / (1 + np.exp(-odds))
        parts = tuple(
            ScorePart(judge=name, raw=0, calibrated=chance)
            for name, chance in zip(names, chances.tolist(), strict=True)
        )
        mean = float(1 / (1 + np.exp(-odds.mean())))
        job = make_job(number, candidates=3, model="sd", collection="ab"[number > 40])
        low = Score(raw=0, calibrated=0)
        found = [low, Score(raw=mean, calibrated=mean, parts=parts), None]
        records = tuple(
            CandidateRecord(index=at, seed=at, score=score) for at, score in enumerate(found)
        )
        folder.records.commit(make_outcome(job, candidates=records, winner=1), image)
        truth[job.id] = right
    return truth


def write(path: Path, truth: dict[str, bool]) -> Path:
    rows = (f"{job},{'yes' if right else 'no'}" for job, right in truth.items())
    path.write_text("job,right\n" + "\n".join(rows), encoding="utf-8")
    return path


def test_labels_weigh_the_judges(settings: Settings, image: ImageArray, tmp_path: Path) -> None:
    truth = record(settings, image, 300, 0)
    found = calibrate_gate("demo", write(tmp_path / "r.csv", truth), 0.9, 9, settings)
    panel = found["panel"]
    assert panel["weights"]["judge-0"] > 5 * panel["weights"]["judge-1"]
    assert panel["held_out_auc"] > found["auc"] + 0.02
    assert panel["recall"] > found["recall"]
    assert found["candidates"] == {"least": 2, "median": 2, "most": 2}
    toml = tomllib.loads(found["toml"])
    assert toml["renderers"]["sd"]["defaults"]["threshold"] == panel["threshold"]
    assert {each["name"]: each["weight"] for each in toml["judge"]} == panel["weights"]
    assert toml["panel"]["offset"] == panel["offset"]
    assert [row["winners"] for row in found["by_collection"]] == [41, 259]


def test_few_labels_give_a_threshold_alone(
    settings: Settings, image: ImageArray, tmp_path: Path
) -> None:
    truth = record(settings, image, 48, 1)
    found = calibrate_gate("demo", write(tmp_path / "r.csv", truth), 0.8, 9, settings)
    assert "50 labelled winners" in found["panel"]["not_fitted"]
    toml: dict[str, Any] = tomllib.loads(found["toml"])
    assert toml["renderers"] == {"sd": {"defaults": {"threshold": found["threshold"]}}}
    assert toml.keys() == {"renderers", "panel"}
    low, high = toml["panel"]["band"]
    records = open_run_folder(settings, "demo").records
    scores = [each.score or 0 for each in records.outcomes(truth)]
    assert 0.4 < np.mean([low <= score <= high for score in scores]) < 0.6
    small = found["by_collection"][1]
    assert (small["winners"], small["threshold"]) == (7, None)
    assert small["problem"] == "fewer than 30 winners"


@pytest.mark.parametrize(
    ("band", "count", "told"),
    [
        ([0.1, 0.9], 40, False),
        ([0.95, 0.99], 40, True),
        ([0.0, 0.2], 40, True),
        ([0.95, 0.99], 20, False),
        (None, 40, False),
    ],
)
def test_a_run_whose_scores_leave_the_band_says_so(
    settings: Settings, image: ImageArray, band: list[float] | None, count: int, told: bool
) -> None:
    jobs = [*record(settings, image, count, 3)]
    folder = open_run_folder(settings, "demo")
    spec = folder.spec()
    panel = {"panel": {"band": band, "offset": 0}}
    rows = [make_job(number, id=job) for number, job in enumerate(jobs)]
    spec = spec.model_copy(
        update={"profile": spec.profile | panel, "rows": count, "shards": 1, "shard_size": count}
    )
    folder.write_spec(spec)
    folder.shards.write(spec.fingerprint, 1, rows)
    summary = publish(folder, spec, 1.0)
    assert ("gate" in summary) == told
    if band and told:
        assert f"outside the calibrated {band[0]:.3f} to {band[1]:.3f}" in summary["gate"]
        middle = float(summary["gate"].split("median score ")[1].split()[0])
        scores = [each.score or 0 for each in folder.records.outcomes(jobs)]
        assert middle == pytest.approx(sorted(scores)[count // 2], abs=0.001)


def test_reviews_without_a_winner_are_counted(
    settings: Settings, image: ImageArray, tmp_path: Path
) -> None:
    truth = record(settings, image, 60, 2)
    failed = make_job(900)
    folder = open_run_folder(settings, "demo").records
    folder.commit(make_outcome(failed, status=Status.FAILED, winner=None), None)
    path = write(tmp_path / "r.csv", truth | {failed.id: True, "unknown": True, "old/x": False})
    found = calibrate_gate("demo", path, 0.8, 9, settings)
    counts = {"of another run": 1, "without a judged image": 1, "without a record": 1}
    assert (found["winners"], found["left_out"]) == (60, counts)
    path.write_text(f"image,right\nj000-{SHA}.png,yes\n", encoding="utf-8")
    with pytest.raises(RunError, match="1 of an image that was replaced"):
        calibrate_gate("demo", path, 0.8, 9, settings)


def test_a_band_leaves_the_ids_of_jobs_as_they_are() -> None:
    profile = Profile.load("shapes")

    def with_panel(**keys: Any) -> str:
        panel = profile.panel.model_copy(update=keys)
        return profile_digest(profile.model_copy(update={"panel": panel}))

    assert with_panel(band=(0.1, 0.9)) == with_panel() != with_panel(offset=1.0)
