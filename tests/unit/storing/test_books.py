"""A run's books: one outcome for each job, whatever happens at the same time."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, PressrunError, RunError, StoreError
from pipeline.job import BadRow, ImageArray, Job, Outcome, RunSpec
from pipeline.ports import DOCUMENT_LIMIT
from pipeline.storing.books import READERS, RunBooks, run_names
from pipeline.storing.folder import FolderStore

JobMaker = Callable[..., Job]
OutcomeMaker = Callable[..., Outcome]


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


def test_a_removed_record_makes_room_for_another(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker, image: ImageArray
) -> None:
    books.commit(make_outcome(make_job()), image)
    books.remove_record("job")
    assert books.outcome("job") is None
    assert not list(books.store.keys("runs/demo/images/"))
    books.remove_record("job")
    assert books.commit(make_outcome(make_job(), attempt="second"), image).attempt == "second"


def test_an_image_that_goes_before_its_record_stands_is_put_again(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker, image: ImageArray
) -> None:
    def taken_for_an_orphan() -> None:
        (key,) = books.store.keys("runs/demo/images/")
        books.store.delete(key)

    committed = books.commit(make_outcome(make_job()), image, taken_for_an_orphan)
    assert committed.image
    assert len(list(books.images([committed.image]))) == 1


def test_outcomes_keep_the_order_asked_for(
    books: RunBooks, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    ids = [f"job_{number:03d}" for number in range(100)]
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


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"record_schema": 2}', b"\xff", b"[" * 100_000])
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
    later = data.replace('"record_schema":2', '"record_schema":3')
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


def test_a_run_that_is_taken_up_again_is_not_to_be_removed(
    books: RunBooks, store: FolderStore
) -> None:
    books.write("removed.json", b"{}\n", "application/json")
    assert books.is_going()
    books.request_cancel()
    books.withdraw_cancel()
    assert not books.is_going()
    assert not books.is_cancelled()


def test_a_document_of_absurd_size_is_not_read(books: RunBooks) -> None:
    for name in ("run.json", "records/job.json", "summary.json"):
        Path(books.address(name)).parent.mkdir(exist_ok=True)
        with Path(books.address(name)).open("wb") as file:
            file.truncate(DOCUMENT_LIMIT + 1)
    for read in (books.spec, lambda: books.outcome("job"), books.summary):
        with pytest.raises(RunError, match=f"has {DOCUMENT_LIMIT + 1} bytes"):
            read()
