"""Opening a run, doing parts of it again, and proving its books; no worker is needed for that."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from flows.commands.answers import agree
from flows.opening import asked_for, forget, open_run, run_name, taken_over
from flows.publish import finished, publish
from flows.reconcile import Report, reconcile
from pipeline.assemble import open_books
from pipeline.errors import RunError, Unavailable
from pipeline.intake.reader import Overrides
from pipeline.job import BadRow, CandidateRecord, Job, Outcome, RunSpec, Score, Status
from pipeline.settings import Settings, load_settings
from pipeline.storing.books import RunBooks

HOURS = 7200.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(store=str(tmp_path / "out"), shard=2)


@pytest.fixture
def books(settings: Settings) -> RunBooks:
    return open_books(settings, "r")


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.csv"
    path.write_text("keywords,steps\nred circle,2\nblue star,x\ngreen ring,2\n", encoding="utf-8")
    return path


def opened(jobs: Path, settings: Settings, books: RunBooks) -> RunSpec:
    return open_run(jobs, Overrides(), settings, books)


def rows(books: RunBooks, spec: RunSpec) -> list[Job | BadRow]:
    return [row for n in range(1, spec.parts + 1) for row in books.part(spec.edition, n)]


def do(books: RunBooks, spec: RunSpec, status: Status = Status.ACCEPTED) -> list[Outcome]:
    """Commit an outcome for each of the run's jobs."""
    done = []
    for job in rows(books, spec):
        if isinstance(job, Job):
            seen = CandidateRecord(index=0, seed=job.seed, score=Score(raw=1, calibrated=1))
            outcome = Outcome(
                run="r", job_id=job.id, status=status, job=job, row=job.row, winner=0,
                keywords=job.keywords, candidates=(seen,),
            )  # fmt: skip
            image = np.full((16, 16, 3), job.seed % 97 / 97, np.float32)
            done.append(books.commit(outcome, image))
    return done


def test_a_file_that_was_opened_before_is_not_read_again(
    jobs: Path, settings: Settings, books: RunBooks
) -> None:
    spec = opened(jobs, settings, books)
    part = Path(settings.store, "runs/r/jobs", spec.edition, "part-00001.parquet")
    written = part.stat().st_mtime_ns
    assert opened(jobs, settings, books) == spec
    assert part.stat().st_mtime_ns == written


def test_an_edited_file_is_another_edition_and_keeps_ids(
    jobs: Path, settings: Settings, books: RunBooks
) -> None:
    first = opened(jobs, settings, books)
    before = rows(books, first)
    jobs.write_text(jobs.read_text().replace("green ring", "green cross"), encoding="utf-8")
    second = opened(jobs, settings, books)
    assert second.edition != first.edition
    after = rows(books, second)
    assert [a.id == b.id for a, b in zip(before, after, strict=True)] == [True, True, False]
    assert open_run(jobs, Overrides(candidates=9), settings, books).edition != second.edition


def test_only_outcomes_that_are_asked_for_are_forgotten(
    jobs: Path, settings: Settings, books: RunBooks
) -> None:
    spec = opened(jobs, settings, books)
    do(books, spec, Status.BELOW_GATE)
    assert forget(books, spec, {Status.FAILED}) == 0
    assert forget(books, spec, {Status.BELOW_GATE}) == 2
    kept = [row.id for row in rows(books, spec) if isinstance(row, BadRow)]
    assert list(books.recorded()) == kept
    assert list(books.listing("images/")) == []


def test_a_run_is_finished_when_nothing_is_left_or_asked_for(
    jobs: Path, settings: Settings, books: RunBooks
) -> None:
    spec = opened(jobs, settings, books)
    assert finished(books, spec, ()) is None
    outcomes = do(books, spec, Status.BELOW_GATE)
    summary = publish(books, spec, 1.0)
    assert finished(books, spec, ()) == summary
    assert finished(books, spec, [Status.FAILED]) == summary
    assert finished(books, spec, [Status.BELOW_GATE]) is None
    books.remove_record(outcomes[0].job_id)
    assert finished(books, spec, ()) is None, "a record is gone"


@pytest.mark.parametrize("read_images", [True, False])
def test_sound_books_are_found_sound(
    jobs: Path, settings: Settings, books: RunBooks, read_images: bool
) -> None:
    spec = opened(jobs, settings, books)
    do(books, spec)
    assert reconcile(books, spec, read_images=read_images) == Report(rows=3)


def test_rows_without_a_record_are_lost_but_bad_rows_are_mended(
    jobs: Path, settings: Settings, books: RunBooks
) -> None:
    spec = opened(jobs, settings, books)
    for job_id in list(books.recorded()):
        books.remove_record(job_id)
    report = reconcile(books, spec, read_images=True)
    assert (report.lost, report.recovered) == (2, 1)
    assert reconcile(books, spec, read_images=True).recovered == 0


def orphan(books: RunBooks, job_id: str) -> str:
    """An old image of a job without a record."""
    name = f"images/{job_id}-{'0' * 12}.png"
    books.write(name, b"on its way", "image/png")
    path = Path(books.address(name))
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - HOURS))
    return name


def test_the_image_of_a_job_in_hand_is_no_orphan(
    jobs: Path, settings: Settings, books: RunBooks
) -> None:
    spec = opened(jobs, settings, books)
    job = next(row for row in rows(books, spec) if isinstance(row, Job))
    image = orphan(books, job.id)

    def away(_: Iterable[str]) -> set[str]:
        raise Unavailable

    for leased in (set[str], away):
        report = reconcile(books, spec, leased, read_images=False)
        assert (report.orphans_removed, report.orphans_young) == (0, 1)
        assert books.blob(image)
    reconcile(books, spec, lambda _: set(), read_images=False)
    assert list(books.listing("images/")) == []


def test_a_record_that_comes_meanwhile_keeps_its_image(
    jobs: Path, settings: Settings, books: RunBooks
) -> None:
    spec = opened(jobs, settings, books)
    committed = do(books, spec)
    for outcome in committed:
        books.store.delete(books.key(f"records/{outcome.job_id}.json"))
    for path in Path(books.address("images")).iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - HOURS))

    def just_now(_: Iterable[str]) -> set[str]:
        do(books, spec)
        return set()

    assert reconcile(books, spec, just_now, read_images=False).orphans_removed == 0
    assert reconcile(books, spec, read_images=True) == Report(rows=3)


def test_orphans_go_when_they_are_old_and_images_of_records_stay(
    jobs: Path, settings: Settings, books: RunBooks
) -> None:
    spec = opened(jobs, settings, books)
    first, second = do(books, spec)
    books.write(f"images/{first.job_id}-{'0' * 12}.png", b"a second execution's", "image/png")
    books.write(f"images/{'f' * 24}-{'0' * 12}.png", b"of no job", "image/png")
    young = reconcile(books, spec, read_images=False)
    assert (young.duplicated, young.orphans_young, young.orphans_removed) == (1, 2, 0)
    for path in Path(books.address("images")).iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - HOURS))
    old = reconcile(books, spec, read_images=False)
    assert (old.orphans_young, old.orphans_removed) == (0, 2)
    kept = {blob.key for blob in books.listing("images/")}
    assert kept == {books.key(o.image.path) for o in (first, second) if o.image}


def test_an_image_that_is_gone_or_another_one_raises_an_alarm(
    jobs: Path, settings: Settings, books: RunBooks
) -> None:
    spec = opened(jobs, settings, books)
    first, second = do(books, spec)
    assert first.image
    assert second.image
    books.store.delete(books.key(first.image.path))
    books.write(second.image.path, b"another one", "image/png")
    assert reconcile(books, spec, read_images=False).unexpected == 1
    report = reconcile(books, spec, read_images=True)
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
    books: RunBooks,
) -> None:
    do(books, opened(jobs, settings, books))
    path = jobs.parent / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"keywords,steps\n{content}", encoding="utf-8")
    other = settings.chosen_profile.model_copy(update={"name": profile})
    asked = asked_for(path, Overrides(), settings, books)
    asked = asked.model_copy(update={"profile": other.model_dump(mode="json")})
    found = taken_over(path, Overrides(), asked, books)
    assert re.search(said, found) if said else found == ""


def test_the_same_rows_in_another_place_are_the_same_run(
    jobs: Path, settings: Settings, books: RunBooks
) -> None:
    opened(jobs, settings, books)
    moved = jobs.rename(jobs.with_name("moved.csv"))
    asked = asked_for(moved, Overrides(candidates=1), settings, books)
    assert taken_over(moved, Overrides(candidates=1), asked, books) == ""


def test_names_in_other_scripts_stay_apart() -> None:
    names = [run_name(Path(f"{stem}.csv")) for stem in ("夏", "冬", "夏1", "冬1", "🎨", "🖼")]
    assert len(set(names)) == len(names)
    assert run_name(Path("夏.csv")) == names[0]
    plain = {"Spring Sale": "spring-sale", "2026-05": "2026-05", "a" * 70: "a" * 64}
    assert {stem: run_name(Path(f"{stem}.csv")) for stem in plain} == plain


def test_without_a_terminal_the_question_is_an_error_that_says_how_to_answer() -> None:
    with pytest.raises(RunError, match=r"1 kept.*--yes.*--run"):
        agree("run r exists: 1 kept, 2 new.")
