"""A run's books: one outcome for each job, whatever happens at the same time."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, PressrunError, RunError, StoreError
from pipeline.job import BadRow, ImageArray, Job
from pipeline.ports import DOCUMENT_LIMIT
from pipeline.record import Outcome, RunSpec
from pipeline.records import shards
from pipeline.records.records import AT_ONCE, READERS
from pipeline.records.run_folder import RunFolder, run_names
from pipeline.storage.folder import FolderStore

JobMaker = Callable[..., Job]
OutcomeMaker = Callable[..., Outcome]


def test_a_spec_is_read_back_as_it_was_written(run_folder: RunFolder, spec: RunSpec) -> None:
    assert run_folder.spec() == spec


def test_a_missing_run_names_those_there_are(run_folder: RunFolder, store: FolderStore) -> None:
    with pytest.raises(RunError, match="no run 'domo'; there are demo"):
        RunFolder(store, "domo").spec()
    assert list(run_names(store)) == ["demo"]


@pytest.mark.parametrize("name", ["demo", "2026-01-31", "a", "_x", "a.b-c_d", "x" * 64])
def test_good_run_names(store: FolderStore, name: str) -> None:
    assert RunFolder(store, name).folder == f"runs/{name}"


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "-x", "A", "a b", "a/b", "a\\b", "a\n", "ä", "x" * 65, "../x"]
)
def test_bad_run_names(store: FolderStore, name: str) -> None:
    with pytest.raises(ConfigError, match="run name"):
        RunFolder(store, name)


def test_rows_of_a_shard_are_read_back_in_order(run_folder: RunFolder, make_job: JobMaker) -> None:
    rows = [
        make_job("a", 2, keywords="赤い {丸}", meta={"product": "x"}, threshold=0.1 + 0.2),
        BadRow(id="b", row=3, column="width", reason="not a number", keywords=""),
        make_job("a", 4),
    ]
    run_folder.shards.write("e", 1, rows)
    assert run_folder.shards.read("e", 1) == rows
    documents = run_folder.shards.documents("e", 1)
    assert {name: Job.model_validate_json(text) for name, text in documents.items()} == {
        "a": rows[2]
    }


def test_another_fingerprint_drops_the_shards_of_the_one_before(
    run_folder: RunFolder, make_job: JobMaker
) -> None:
    for fingerprint in ("old", "new"):
        run_folder.shards.write(fingerprint, 1, [make_job(fingerprint)])
    run_folder.drop(shards.FOLDER, but="new")
    assert run_folder.shards.read("new", 1)[0].id == "new"
    with pytest.raises(RunError, match=r"old/shard-00001.parquet is missing"):
        run_folder.shards.read("old", 1)


def test_a_run_can_be_asked_to_stop_and_to_go_on(run_folder: RunFolder) -> None:
    assert not run_folder.is_cancelled()
    run_folder.request_cancel()
    assert run_folder.is_cancelled()
    run_folder.withdraw_cancel()
    assert not run_folder.is_cancelled()


def test_a_removed_record_makes_room_for_another(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker, image: ImageArray
) -> None:
    run_folder.records.commit(make_outcome(make_job()), image)
    run_folder.records.remove("job")
    assert run_folder.records.outcome("job") is None
    assert not list(run_folder.store.keys("runs/demo/images/"))
    run_folder.records.remove("job")
    assert (
        run_folder.records.commit(make_outcome(make_job(), attempt="second"), image).attempt
        == "second"
    )


def test_an_image_that_goes_before_its_record_stands_is_put_again(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker, image: ImageArray
) -> None:
    def taken_for_an_orphan() -> None:
        (key,) = run_folder.store.keys("runs/demo/images/")
        run_folder.store.delete(key)

    committed = run_folder.records.commit(make_outcome(make_job()), image, taken_for_an_orphan)
    assert committed.image
    assert len(list(run_folder.records.images([committed.image]))) == 1


def test_outcomes_keep_the_order_asked_for(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    ids = [f"job_{number:03d}" for number in range(100)]
    for job_id in ids[::2]:
        run_folder.records.commit(make_outcome(make_job(job_id)), None)
    asked = ids[::-1]
    assert [o.job_id for o in run_folder.records.outcomes(asked)] == [
        i for i in asked if i in ids[::2]
    ]


def test_outcomes_are_read_a_few_ahead(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    run_folder.records.commit(make_outcome(make_job()), None)
    taken = 0

    def ids() -> Iterable[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "job"

    found = run_folder.records.outcomes(ids())
    for _ in range(5):
        next(found)
    found.close()
    assert taken <= (READERS + 1) * AT_ONCE


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"record_schema": 3}', b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_named(run_folder: RunFolder, damage: bytes) -> None:
    run_folder.write("records/job.json", damage, "application/json")
    with pytest.raises(RunError, match=r"records/job\.json is damaged"):
        run_folder.records.outcome("job")


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" + b"\xff" * 64 + b"PAR1", b"{}"])
def test_a_damaged_shard_is_named(run_folder: RunFolder, damage: bytes) -> None:
    run_folder.write("jobs/e/shard-00001.parquet", damage, "application/vnd.apache.parquet")
    with pytest.raises(RunError, match=r"shard-00001.parquet is damaged"):
        run_folder.shards.read("e", 1)
    with pytest.raises(RunError, match=r"shard-00001.parquet is damaged"):
        run_folder.shards.documents("e", 1)


def test_a_damaged_spec_is_named(run_folder: RunFolder) -> None:
    run_folder.write("run.json", b"{", "application/json")
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        run_folder.spec()


def test_a_record_of_a_later_schema_is_refused(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    data = make_outcome(make_job()).model_dump_json()
    later = data.replace('"record_schema":3', '"record_schema":4')
    assert later != data
    run_folder.write("records/job.json", later.encode(), "application/json")
    with pytest.raises(RunError, match="another version"):
        run_folder.records.outcome("job")


def test_a_job_id_cannot_leave_the_run(run_folder: RunFolder) -> None:
    with pytest.raises(PressrunError):
        run_folder.records.outcome("../../other/records/x")


def test_the_summary_comes_back(run_folder: RunFolder) -> None:
    assert run_folder.summary() == {}
    run_folder.write_summary({"rows": 3, "seconds": 1.5, "run": "demo"})
    assert run_folder.summary() == {"rows": 3, "seconds": 1.5, "run": "demo"}


def test_the_address_is_the_runs_folder(run_folder: RunFolder, store: FolderStore) -> None:
    assert run_folder.address() == store.address("runs/demo")
    assert run_folder.address("gallery/index.html") == store.address("runs/demo/gallery/index.html")


def test_a_run_that_is_removed_leaves_nothing(run_folder: RunFolder, store: FolderStore) -> None:
    run_folder.write("gallery/index.html", b"page", "text/html")
    run_folder.write_summary({"accepted": 1})
    assert 0 <= run_folder.age() < 60
    RunFolder(store, "demo-2").request_cancel()
    run_folder.remove()
    assert list(store.keys("")) == ["runs/demo-2/cancelled.json"]


def test_a_removal_that_was_interrupted_is_known(
    run_folder: RunFolder, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(key: str) -> None:
        raise StoreError("no")

    assert not run_folder.is_going()
    with monkeypatch.context() as broken:
        broken.setattr(store, "delete", refuse)
        with pytest.raises(StoreError):
            run_folder.remove()
    assert run_folder.is_going()
    assert run_folder.is_cancelled(), "nobody goes on with it"
    run_folder.remove()
    assert not run_folder.is_going()


def test_a_run_that_is_taken_up_again_is_not_to_be_removed(
    run_folder: RunFolder, store: FolderStore
) -> None:
    run_folder.write("removed.json", b"{}\n", "application/json")
    assert run_folder.is_going()
    run_folder.request_cancel()
    run_folder.withdraw_cancel()
    assert not run_folder.is_going()
    assert not run_folder.is_cancelled()


def test_a_document_of_absurd_size_is_not_read(run_folder: RunFolder) -> None:
    for name in ("run.json", "records/job.json", "summary.json"):
        Path(run_folder.address(name)).parent.mkdir(exist_ok=True)
        with Path(run_folder.address(name)).open("wb") as file:
            file.truncate(DOCUMENT_LIMIT + 1)
    for read in (run_folder.spec, lambda: run_folder.records.outcome("job"), run_folder.summary):
        with pytest.raises(RunError, match=f"has {DOCUMENT_LIMIT + 1} bytes"):
            read()
