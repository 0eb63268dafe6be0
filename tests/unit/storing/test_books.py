"""A run's books: one outcome for each job, whatever happens at the same time."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError, PressrunError, RunError, StoreError, Unavailable
from pipeline.job import BadRow, Job, Outcome, Picture, RunSpec, Score, Verdict
from pipeline.pictures import decode
from pipeline.storing.books import READERS, RunBooks, run_names
from pipeline.storing.folder import FolderStore

JobMaker = Callable[..., Job]
OutcomeMaker = Callable[..., Outcome]


def images(books: RunBooks) -> list[str]:
    return [key.removeprefix("runs/demo/") for key in books.store.keys("runs/demo/images/")]


def test_spec_comes_back(books: RunBooks, spec: RunSpec) -> None:
    assert books.spec() == spec


def test_a_missing_run_names_those_there_are(books: RunBooks, store: FolderStore) -> None:
    with pytest.raises(RunError, match="no run 'domo'; there are demo"):
        RunBooks(store, "domo").spec()
    assert list(run_names(store)) == ["demo"]


@pytest.mark.parametrize("name", ["demo", "2026-01-31", "a", "_x", "a.b-c_d", "x" * 64])
def test_good_run_names(store: FolderStore, name: str) -> None:
    assert RunBooks(store, name).folder == f"runs/{name}"


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "-x", "A", "a b", "a/b", "a\\b", "a\n", "ä", "x" * 65, "../x"]
)
def test_bad_run_names(store: FolderStore, name: str) -> None:
    with pytest.raises(ConfigError, match="run name"):
        RunBooks(store, name)


def test_parts_come_back_in_order(books: RunBooks, make_job: JobMaker) -> None:
    rows = [
        make_job("a", 2, keywords="赤い {丸}", meta={"product": "x"}, threshold=0.1 + 0.2),
        BadRow(id="b", row=3, column="width", reason="not a number", keywords=""),
        make_job("a", 4),
    ]
    books.write_part("e", 1, rows)
    assert books.part("e", 1) == rows
    documents = books.documents("e", 1)
    assert {name: Job.model_validate_json(text) for name, text in documents.items()} == {
        "a": rows[2]
    }


def test_another_edition_drops_the_parts_of_the_one_before(
    books: RunBooks, make_job: JobMaker
) -> None:
    for edition in ("old", "new"):
        books.write_part(edition, 1, [make_job(edition)])
    books.drop_other_parts("new")
    assert books.part("new", 1)[0].id == "new"
    with pytest.raises(RunError, match=r"old/part-00001.parquet is missing"):
        books.part("old", 1)


def test_a_run_can_be_asked_to_stop_and_to_go_on(books: RunBooks) -> None:
    assert not books.is_cancelled()
    books.request_cancel()
    assert books.is_cancelled()
    books.withdraw_cancel()
    assert not books.is_cancelled()


def test_an_execution_that_may_not_write_leaves_no_record(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker, picture: Picture
) -> None:
    def refuse() -> None:
        raise RunError("fenced")

    outcome = make_outcome(make_job())
    with pytest.raises(RunError, match="fenced"):
        books.commit(outcome, picture, refuse)
    assert books.outcome(outcome.job_id) is None


def test_commit_keeps_picture_and_record(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker, picture: Picture
) -> None:
    outcome = make_outcome(make_job())
    kept = books.commit(outcome, picture)
    assert kept.image is not None
    data = books.blob(kept.image.path)
    assert kept.image.sha256 == sha256(data).hexdigest()
    assert kept.image.path == f"images/job-{kept.image.sha256[:12]}.png"
    assert (kept.image.width, kept.image.height) == (64, 64)
    assert np.abs(decode(data) - picture).max() < 0.5 / 255 + 1e-6
    assert kept == outcome.model_copy(update={"image": kept.image})
    assert books.outcome("job") == kept
    assert list(books.recorded()) == ["job"]


@pytest.mark.parametrize(("fmt", "extension"), [("png", "png"), ("webp", "webp"), ("jpeg", "jpg")])
def test_the_formats_have_their_extensions(
    books: RunBooks, fmt: str, extension: str, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    books = RunBooks(books.store, "demo", fmt)
    kept = books.commit(make_outcome(make_job()), np.zeros((8, 16, 3), np.float32))
    assert kept.image is not None
    assert kept.image.path.endswith(f".{extension}")
    assert (kept.image.width, kept.image.height) == (16, 8)


def test_a_failed_job_keeps_no_picture(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    failed = make_outcome(make_job(), verdict=Verdict.FAILED, winner=None)
    assert books.commit(failed, None) == failed
    assert images(books) == []


def test_the_first_record_stands_and_the_losers_picture_goes(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker, picture: Picture
) -> None:
    first = books.commit(make_outcome(make_job()), picture)
    second = books.commit(make_outcome(make_job(), attempt="second"), 1 - picture)
    assert second == first == books.outcome("job")
    assert first.image is not None
    assert images(books) == [first.image.path]


def test_the_same_picture_made_twice_stays(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker, picture: Picture
) -> None:
    first = books.commit(make_outcome(make_job()), picture)
    second = books.commit(make_outcome(make_job(), attempt="second"), picture)
    assert second == first
    assert first.image is not None
    assert images(books) == [first.image.path]


def test_a_picture_for_a_record_without_one_goes(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker, picture: Picture
) -> None:
    books.commit(make_outcome(make_job(), verdict=Verdict.FAILED, winner=None), None)
    assert books.commit(make_outcome(make_job()), picture).verdict == Verdict.FAILED
    assert images(books) == []


def test_of_many_executions_one_is_kept(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    pictures = np.random.default_rng(0).random((16, 8, 8, 3), dtype=np.float32)
    start = threading.Barrier(len(pictures))

    def execute(number: int) -> Outcome:
        start.wait()
        outcome = make_outcome(make_job(), attempt=str(number))
        return books.commit(outcome, pictures[number])

    with ThreadPoolExecutor(len(pictures)) as pool:
        kept = list(pool.map(execute, range(len(pictures))))
    assert {outcome.attempt for outcome in kept} == {kept[0].attempt}
    assert kept[0].image is not None
    assert images(books) == [kept[0].image.path]


class AnswerLost(FolderStore):
    """A store whose first conditional write arrives, but whose answer reads as if it had not."""

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        done = super().put(key, data, content_type=content_type, new=new)
        return False if new else done


def test_our_own_record_after_a_lost_answer_keeps_its_picture(
    books: RunBooks, store: FolderStore, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    books = RunBooks(AnswerLost(Path(store.address(""))), "demo")
    kept = books.commit(make_outcome(make_job()), np.zeros((8, 8, 3), np.float32))
    assert kept.attempt == "first"
    assert kept.image is not None
    assert images(books) == [kept.image.path]


class RecordsVanish(FolderStore):
    """A store whose records are removed between the write that they refuse and the next look."""

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        return not new and super().put(key, data, content_type=content_type)


def test_a_record_that_vanishes_is_no_outcome(
    store: FolderStore, books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    vanishing = RunBooks(RecordsVanish(Path(store.address(""))), "demo")
    with pytest.raises(Unavailable, match="vanished"):
        vanishing.commit(make_outcome(make_job()), np.zeros((8, 8, 3), np.float32))
    assert books.outcome("job") is None


class RecordsFail(FolderStore):
    """A store that is full when the record comes."""

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        if "/records/" in key:
            raise StoreError("full")
        return super().put(key, data, content_type=content_type, new=new)


def test_the_picture_comes_before_the_record(
    store: FolderStore, books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    broken = RunBooks(RecordsFail(Path(store.address(""))), "demo")
    with pytest.raises(StoreError):
        broken.commit(make_outcome(make_job()), np.zeros((8, 8, 3), np.float32))
    assert books.outcome("job") is None
    assert len(images(books)) == 1


def test_the_picture_carries_what_it_was_made_from(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker, picture: Picture
) -> None:
    kept = books.commit(make_outcome(make_job()), picture)
    assert kept.image is not None
    data = books.blob(kept.image.path)
    assert b"a red circle\nNegative prompt: blur\nSteps: 20, Sampler: Euler, " in data
    assert b"Seed: 8, Size: 64x64, Model hash: 0123456789, Model: diffusion" in data


def test_a_bad_row_becomes_an_invalid_outcome(books: RunBooks) -> None:
    bad = BadRow(id="bad", row=9, column="width", reason="'x' is no number", keywords="red")
    outcome = books.reject(bad)
    assert books.outcome("bad") == outcome
    assert (outcome.verdict, outcome.row, outcome.keywords) == (Verdict.INVALID, 9, "red")
    assert outcome.reason == "column 'width': 'x' is no number"
    assert books.reject(bad) == outcome


def test_a_removed_record_makes_room_for_another(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker, picture: Picture
) -> None:
    books.commit(make_outcome(make_job()), picture)
    books.remove_record("job")
    assert books.outcome("job") is None
    assert images(books) == []
    books.remove_record("job")
    assert books.commit(make_outcome(make_job(), attempt="second"), picture).attempt == "second"


def test_outcomes_keep_the_order_asked_for(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    ids = [f"job-{number:03d}" for number in range(100)]
    for job_id in ids[::2]:
        books.commit(make_outcome(make_job(job_id)), None)
    asked = ids[::-1]
    assert [o.job_id for o in books.outcomes(asked)] == [i for i in asked if i in ids[::2]]


def test_outcomes_are_read_a_few_ahead(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    books.commit(make_outcome(make_job()), None)
    taken = 0

    def ids() -> Iterable[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "job"

    found = books.outcomes(ids())
    for _ in range(5):
        next(found)
    found.close()
    assert taken <= READERS + 5


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"record_schema": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_named(books: RunBooks, damage: bytes) -> None:
    books.write("records/job.json", damage, "application/json")
    with pytest.raises(RunError, match=r"records/job\.json is damaged"):
        books.outcome("job")


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" + b"\xff" * 64 + b"PAR1", b"{}"])
def test_a_damaged_part_is_named(books: RunBooks, damage: bytes) -> None:
    books.write("jobs/e/part-00001.parquet", damage, "application/vnd.apache.parquet")
    with pytest.raises(RunError, match=r"part-00001\.parquet is damaged"):
        books.part("e", 1)
    with pytest.raises(RunError, match=r"part-00001\.parquet is damaged"):
        books.documents("e", 1)


def test_a_damaged_spec_is_named(books: RunBooks) -> None:
    books.write("run.json", b"{", "application/json")
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        books.spec()


def test_a_record_of_a_later_schema_is_refused(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    data = make_outcome(make_job()).model_dump_json()
    later = data.replace('"record_schema":1', '"record_schema":2')
    assert later != data
    books.write("records/job.json", later.encode(), "application/json")
    with pytest.raises(RunError, match="another version"):
        books.outcome("job")


def test_a_job_id_cannot_leave_the_run(books: RunBooks) -> None:
    with pytest.raises(PressrunError):
        books.outcome("../../other/records/x")


def test_the_summary_comes_back(books: RunBooks) -> None:
    assert books.summary() == {}
    books.write_summary({"rows": 3, "seconds": 1.5, "run": "demo"})
    assert books.summary() == {"rows": 3, "seconds": 1.5, "run": "demo"}


def test_the_address_is_the_runs_folder(books: RunBooks, store: FolderStore) -> None:
    assert books.address() == store.address("runs/demo")
    assert books.address("gallery/index.html") == store.address("runs/demo/gallery/index.html")


def test_a_score_that_json_cannot_hold_is_refused_before_it_is_recorded() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Score(raw=value, calibrated=0.5)


def test_a_run_that_is_removed_leaves_nothing(books: RunBooks, store: FolderStore) -> None:
    books.write("gallery/index.html", b"page", "text/html")
    books.write_summary({"accepted": 1})
    assert 0 <= books.age() < 60
    RunBooks(store, "demo-2").request_cancel()
    books.remove()
    assert list(store.keys("")) == ["runs/demo-2/cancelled.json"]


def test_a_removal_that_was_interrupted_is_known(
    books: RunBooks, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(key: str) -> None:
        raise StoreError("no")

    assert not books.is_going()
    with monkeypatch.context() as broken:
        broken.setattr(store, "delete", refuse)
        with pytest.raises(StoreError):
            books.remove()
    assert books.is_going()
    assert books.is_cancelled(), "nobody goes on with it"
    books.remove()
    assert not books.is_going()
