"""Opening a run, doing parts of it again, and proving its books; no worker is needed for that."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from flows.cli.output import agree
from flows.runs.open import asked_for, forget, open_run, run_name, taken_over
from flows.runs.publish import finished, publish
from flows.runs.reconcile import Report, reconcile
from pipeline.errors import RunError, Unavailable
from pipeline.job import BadRow, Job, Score
from pipeline.jobfile.reader import Overrides
from pipeline.record import CandidateRecord, Outcome, RunSpec, Status
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings

HOURS = 7200.0


def opened(jobs: Path, settings: Settings, run_folder: RunFolder) -> RunSpec:
    return open_run(jobs, Overrides(), settings, run_folder)


def rows(run_folder: RunFolder, spec: RunSpec) -> list[Job | BadRow]:
    return [
        row
        for n in range(1, spec.shards + 1)
        for row in run_folder.shards.read(spec.fingerprint, n)
    ]


def do(run_folder: RunFolder, spec: RunSpec, status: Status = Status.ACCEPTED) -> list[Outcome]:
    """Commit an outcome for each of the run's jobs."""
    done = []
    for job in rows(run_folder, spec):
        if isinstance(job, Job):
            seen = CandidateRecord(index=0, seed=job.seed, score=Score(raw=1, calibrated=1))
            outcome = Outcome(
                run="r", job_id=job.id, status=status, job=job, row=job.row, winner=0,
                keywords=job.keywords, candidates=(seen,),
            )  # fmt: skip
            image = np.full((16, 16, 3), job.seed % 97 / 97, np.float32)
            done.append(run_folder.records.commit(outcome, image))
    return done


def test_a_file_that_was_opened_before_is_not_read_again(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    spec = opened(jobs, settings, run_folder)
    part = Path(settings.store, "runs/r/jobs", spec.fingerprint, "shard-00001.parquet")
    written = part.stat().st_mtime_ns
    assert opened(jobs, settings, run_folder) == spec
    assert part.stat().st_mtime_ns == written


def test_an_edited_file_has_another_fingerprint_and_keeps_ids(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    first = opened(jobs, settings, run_folder)
    before = rows(run_folder, first)
    jobs.write_text(jobs.read_text().replace("green ring", "green cross"), encoding="utf-8")
    second = opened(jobs, settings, run_folder)
    assert second.fingerprint != first.fingerprint
    after = rows(run_folder, second)
    assert [a.id == b.id for a, b in zip(before, after, strict=True)] == [True, True, False]
    assert (
        open_run(jobs, Overrides(candidates=9), settings, run_folder).fingerprint
        != second.fingerprint
    )


def test_only_outcomes_that_are_asked_for_are_forgotten(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    spec = opened(jobs, settings, run_folder)
    do(run_folder, spec, Status.BELOW_GATE)
    ids = [row.id for row in rows(run_folder, spec) if isinstance(row, Job)]
    assert forget(run_folder, ids, {Status.FAILED}) == set()
    assert forget(run_folder, ids, {Status.BELOW_GATE}) == set(ids)
    kept = [row.id for row in rows(run_folder, spec) if isinstance(row, BadRow)]
    assert list(run_folder.records.ids()) == kept
    assert list(run_folder.listing("images/")) == []


def test_a_run_is_finished_when_nothing_is_left_or_asked_for(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    spec = opened(jobs, settings, run_folder)
    assert finished(run_folder, spec, ()) is None
    outcomes = do(run_folder, spec, Status.BELOW_GATE)
    summary = publish(run_folder, spec, 1.0)
    assert finished(run_folder, spec, ()) == summary
    assert finished(run_folder, spec, [Status.FAILED]) == summary
    assert finished(run_folder, spec, [Status.BELOW_GATE]) is None
    run_folder.records.remove(outcomes[0].job_id)
    assert finished(run_folder, spec, ()) is None, "a record is gone"


@pytest.mark.parametrize("read_images", [True, False])
def test_sound_books_are_found_sound(
    jobs: Path, settings: Settings, run_folder: RunFolder, read_images: bool
) -> None:
    spec = opened(jobs, settings, run_folder)
    do(run_folder, spec)
    assert reconcile(run_folder, spec, read_images=read_images) == Report(rows=3)


def test_rows_without_a_record_are_lost_but_bad_rows_are_mended(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    spec = opened(jobs, settings, run_folder)
    for job_id in list(run_folder.records.ids()):
        run_folder.records.remove(job_id)
    report = reconcile(run_folder, spec, read_images=True)
    assert (report.lost, report.recovered) == (2, 1)
    assert reconcile(run_folder, spec, read_images=True).recovered == 0


def orphan(run_folder: RunFolder, job_id: str) -> str:
    """An old image of a job without a record."""
    name = f"images/{job_id}-{'0' * 12}.png"
    run_folder.write(name, b"on its way", "image/png")
    path = Path(run_folder.address(name))
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - HOURS))
    return name


def test_the_image_of_a_job_in_hand_is_no_orphan(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    spec = opened(jobs, settings, run_folder)
    job = next(row for row in rows(run_folder, spec) if isinstance(row, Job))
    image = orphan(run_folder, job.id)

    def away(_: Iterable[str]) -> set[str]:
        raise Unavailable

    for leased in (set[str], away):
        report = reconcile(run_folder, spec, leased, read_images=False)
        assert (report.orphans_removed, report.orphans_young) == (0, 1)
        assert run_folder.blob(image)
    reconcile(run_folder, spec, lambda _: set(), read_images=False)
    assert list(run_folder.listing("images/")) == []


def test_a_record_that_comes_meanwhile_keeps_its_image(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    spec = opened(jobs, settings, run_folder)
    committed = do(run_folder, spec)
    for outcome in committed:
        run_folder.store.delete(run_folder.key(f"records/{outcome.job_id}.json"))
    for path in Path(run_folder.address("images")).iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - HOURS))

    def just_now(_: Iterable[str]) -> set[str]:
        do(run_folder, spec)
        return set()

    assert reconcile(run_folder, spec, just_now, read_images=False).orphans_removed == 0
    assert reconcile(run_folder, spec, read_images=True) == Report(rows=3)


def test_orphans_go_when_they_are_old_and_images_of_records_stay(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    spec = opened(jobs, settings, run_folder)
    first, second = do(run_folder, spec)
    run_folder.write(f"images/{first.job_id}-{'0' * 12}.png", b"a second execution's", "image/png")
    run_folder.write(f"images/{'f' * 24}-{'0' * 12}.png", b"of no job", "image/png")
    young = reconcile(run_folder, spec, read_images=False)
    assert (young.duplicated, young.orphans_young, young.orphans_removed) == (1, 2, 0)
    for path in Path(run_folder.address("images")).iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - HOURS))
    old = reconcile(run_folder, spec, read_images=False)
    assert (old.orphans_young, old.orphans_removed) == (0, 2)
    kept = {blob.key for blob in run_folder.listing("images/")}
    assert kept == {run_folder.key(o.image.path) for o in (first, second) if o.image}


def test_an_image_that_is_gone_or_another_one_raises_an_alarm(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    spec = opened(jobs, settings, run_folder)
    first, second = do(run_folder, spec)
    assert first.image
    assert second.image
    run_folder.store.delete(run_folder.key(first.image.path))
    run_folder.write(second.image.path, b"another one", "image/png")
    assert reconcile(run_folder, spec, read_images=False).unexpected == 1
    report = reconcile(run_folder, spec, read_images=True)
    assert report.unexpected == 2
    assert any("missing" in alarm for alarm in report.alarms)
    assert any("not the image" in alarm for alarm in report.alarms)


@pytest.mark.parametrize(
    ("name", "content", "profile", "said"),
    [
        ("jobs.csv", "red circle,2\nblue ring,2\n", "shapes", ""),
        ("b/jobs.csv", "red circle,2\nblue ring,2\n", "shapes", "1 kept, 1 new. .*another file"),
        ("other.csv", "blue ring,2\n", "shapes", "0 kept, 1 new. .*another file, jobs.csv"),
        ("jobs.csv", "red circle,2\n", "shapes-turbo", "another profile, shapes"),
    ],
)
def test_a_name_of_another_file_or_profile_is_told(
    name: str,
    content: str,
    profile: str,
    said: str,
    jobs: Path,
    settings: Settings,
    run_folder: RunFolder,
) -> None:
    do(run_folder, opened(jobs, settings, run_folder))
    path = jobs.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"keywords,steps\n{content}", encoding="utf-8")
    other = settings.chosen_profile.model_copy(update={"name": profile})
    asked = asked_for(path, Overrides(), settings, run_folder)
    asked = asked.model_copy(update={"profile": other.model_dump(mode="json")})
    found = taken_over(path, Overrides(), asked, run_folder, settings)
    assert re.search(said, found) if said else found == ""


def test_the_same_rows_in_another_place_are_the_same_run(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    opened(jobs, settings, run_folder)
    moved = jobs.rename(jobs.with_name("moved.csv"))
    asked = asked_for(moved, Overrides(candidates=1), settings, run_folder)
    assert taken_over(moved, Overrides(candidates=1), asked, run_folder, settings) == ""


def test_names_in_other_scripts_stay_apart() -> None:
    names = [run_name(Path(f"{stem}.csv")) for stem in ("夏", "冬", "夏1", "冬1", "🎨", "🖼")]
    assert len(set(names)) == len(names)
    assert run_name(Path("夏.csv")) == names[0]
    plain = {"Spring Sale": "spring-sale", "2026-05": "2026-05", "a" * 70: "a" * 64}
    assert {stem: run_name(Path(f"{stem}.csv")) for stem in plain} == plain


def test_without_a_terminal_the_question_is_an_error_that_says_how_to_answer() -> None:
    with pytest.raises(RunError, match=r"1 kept.*--yes.*--run"):
        agree("run r exists: 1 kept, 2 new.")
