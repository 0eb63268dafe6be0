"""What stands in the store once an execution has ended."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.errors import RunError, StoreError, Unavailable
from pipeline.job import BadRow, ImageArray, Job, Score
from pipeline.media.image import decode
from pipeline.media.perceptual import perceptual_hash
from pipeline.record import Outcome, Status
from pipeline.records.run_folder import RunFolder
from pipeline.storage.folder import FolderStore

JobMaker = Callable[..., Job]
OutcomeMaker = Callable[..., Outcome]


def image_files(run_folder: RunFolder) -> list[str]:
    return [key.removeprefix("runs/demo/") for key in run_folder.store.keys("runs/demo/images/")]


def test_an_execution_that_may_not_write_leaves_no_record(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker, image: ImageArray
) -> None:
    def refuse() -> None:
        raise RunError("fenced")

    outcome = make_outcome(make_job())
    with pytest.raises(RunError, match="fenced"):
        run_folder.records.commit(outcome, image, refuse)
    assert run_folder.records.outcome(outcome.job_id) is None


def test_commit_keeps_image_and_record(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker, image: ImageArray
) -> None:
    outcome = make_outcome(make_job())
    kept = run_folder.records.commit(outcome, image)
    assert kept.image is not None
    data = run_folder.blob(kept.image.path)
    assert kept.image.sha256 == sha256(data).hexdigest()
    assert kept.image.path == f"images/job-{kept.image.sha256[:12]}.png"
    assert (kept.image.width, kept.image.height) == (64, 64)
    assert kept.image.perceptual_hash == perceptual_hash(image)
    assert np.abs(decode(data) - image).max() < 0.5 / 255 + 1e-6
    assert kept == outcome.model_copy(update={"image": kept.image})
    assert run_folder.records.outcome("job") == kept
    assert list(run_folder.records.ids()) == ["job"]


@pytest.mark.parametrize(("fmt", "extension"), [("png", "png"), ("webp", "webp"), ("jpeg", "jpg")])
def test_an_image_gets_the_extension_of_its_format(
    run_folder: RunFolder, fmt: str, extension: str, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    run_folder = RunFolder(run_folder.store, "demo", fmt)
    kept = run_folder.records.commit(make_outcome(make_job()), np.zeros((8, 16, 3), np.float32))
    assert kept.image is not None
    assert kept.image.path.endswith(f".{extension}")
    assert (kept.image.width, kept.image.height) == (16, 8)


def test_a_failed_job_keeps_no_image(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    failed = make_outcome(make_job(), status=Status.FAILED, winner=None)
    assert run_folder.records.commit(failed, None) == failed
    assert image_files(run_folder) == []


def test_the_first_record_stands_and_the_losers_image_goes(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker, image: ImageArray
) -> None:
    first = run_folder.records.commit(make_outcome(make_job()), image)
    second = run_folder.records.commit(make_outcome(make_job(), attempt="second"), 1 - image)
    assert second == first == run_folder.records.outcome("job")
    assert first.image is not None
    assert image_files(run_folder) == [first.image.path]


def test_the_same_image_made_twice_stays(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker, image: ImageArray
) -> None:
    first = run_folder.records.commit(make_outcome(make_job()), image)
    second = run_folder.records.commit(make_outcome(make_job(), attempt="second"), image)
    assert second == first
    assert first.image is not None
    assert image_files(run_folder) == [first.image.path]


def test_an_image_for_a_record_without_one_goes(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker, image: ImageArray
) -> None:
    run_folder.records.commit(make_outcome(make_job(), status=Status.FAILED, winner=None), None)
    assert run_folder.records.commit(make_outcome(make_job()), image).status == Status.FAILED
    assert image_files(run_folder) == []


def test_of_concurrent_executions_of_a_job_one_record_is_kept(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    images = np.random.default_rng(0).random((16, 8, 8, 3), dtype=np.float32)
    start = threading.Barrier(len(images))

    def execute(number: int) -> Outcome:
        start.wait()
        outcome = make_outcome(make_job(), attempt=str(number))
        return run_folder.records.commit(outcome, images[number])

    with ThreadPoolExecutor(len(images)) as pool:
        kept = list(pool.map(execute, range(len(images))))
    assert {outcome.attempt for outcome in kept} == {kept[0].attempt}
    assert kept[0].image is not None
    assert image_files(run_folder) == [kept[0].image.path]


class AnswerLost(FolderStore):
    """A store whose first conditional write arrives, but whose answer reads as if it had not."""

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        done = super().put(key, data, content_type=content_type, new=new)
        return False if new else done


def test_our_own_record_after_a_lost_answer_keeps_its_image(
    run_folder: RunFolder, store: FolderStore, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    run_folder = RunFolder(AnswerLost(Path(store.address(""))), "demo")
    kept = run_folder.records.commit(make_outcome(make_job()), np.zeros((8, 8, 3), np.float32))
    assert kept.attempt == "first"
    assert kept.image is not None
    assert image_files(run_folder) == [kept.image.path]


class RecordsVanish(FolderStore):
    """A store whose records are removed between the write that they refuse and the next look."""

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        return not new and super().put(key, data, content_type=content_type)


def test_a_record_that_vanishes_is_no_outcome(
    store: FolderStore, run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    vanishing = RunFolder(RecordsVanish(Path(store.address(""))), "demo")
    with pytest.raises(Unavailable, match="vanished"):
        vanishing.records.commit(make_outcome(make_job()), np.zeros((8, 8, 3), np.float32))
    assert run_folder.records.outcome("job") is None


class RecordsFail(FolderStore):
    """A store that is full when the record comes."""

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        if "/records/" in key:
            raise StoreError("full")
        return super().put(key, data, content_type=content_type, new=new)


def test_the_image_comes_before_the_record(
    store: FolderStore, run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker
) -> None:
    broken = RunFolder(RecordsFail(Path(store.address(""))), "demo")
    with pytest.raises(StoreError):
        broken.records.commit(make_outcome(make_job()), np.zeros((8, 8, 3), np.float32))
    assert run_folder.records.outcome("job") is None
    assert len(image_files(run_folder)) == 1


def test_the_image_carries_what_it_was_made_from(
    run_folder: RunFolder, make_job: JobMaker, make_outcome: OutcomeMaker, image: ImageArray
) -> None:
    kept = run_folder.records.commit(make_outcome(make_job()), image)
    assert kept.image is not None
    data = run_folder.blob(kept.image.path)
    assert b"a red circle\nNegative prompt: blur\nSteps: 20, Sampler: Euler, " in data
    assert b"Seed: 8, Size: 64x64, Model hash: 0123456789, Model: diffusion" in data


def test_a_bad_row_becomes_an_invalid_outcome(run_folder: RunFolder) -> None:
    bad = BadRow(id="bad", row=9, column="width", reason="'x' is no number", keywords="red")
    outcome = run_folder.records.reject(bad)
    assert run_folder.records.outcome("bad") == outcome
    assert (outcome.status, outcome.row, outcome.keywords) == (Status.INVALID, 9, "red")
    assert outcome.reason == "column 'width': 'x' is no number"
    assert run_folder.records.reject(bad) == outcome


def test_a_score_that_json_cannot_hold_is_refused_before_it_is_recorded() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Score(raw=value, calibrated=0.5)
