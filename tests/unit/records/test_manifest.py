"""The manifest: a line for each row, and the same file each time."""

from collections.abc import Callable

import numpy as np
import pytest

from flows.runs.lines import RunLines
from pipeline.errors import RunError
from pipeline.job import BadRow, ImageArray, Job
from pipeline.record import Outcome, RunSpec, Status
from pipeline.records import manifest as of_run
from pipeline.records.manifest import COLUMNS, SCHEMA, counts, read_manifest
from pipeline.records.run_folder import RunFolder


def build_manifest(run_folder: RunFolder, spec: RunSpec) -> bytes:
    return of_run.build_manifest(run_folder, RunLines(run_folder, spec).tables(*COLUMNS))


@pytest.fixture
def filled(
    run_folder: RunFolder,
    spec: RunSpec,
    make_job: Callable[..., Job],
    make_outcome: Callable[..., Outcome],
    image: ImageArray,
) -> RunSpec:
    """Books with an accepted job on two rows, a bad row, a failed job and an unfinished one."""
    accepted = make_job("accepted", 2, name="A-1", collection="brand", meta={"b": "2", "a": "ü"})
    failed, unfinished = make_job("failed", 4), make_job("unfinished", 5)
    bad = BadRow(id="bad", row=3, column="width", reason="'x' is no number", keywords="red")
    again = accepted.model_copy(update={"row": 6})
    run_folder.shards.write(spec.fingerprint, 1, [failed, bad, accepted])
    run_folder.shards.write(spec.fingerprint, 2, [unfinished, again])
    run_folder.records.commit(make_outcome(accepted), image)
    run_folder.records.commit(
        make_outcome(failed, status=Status.FAILED, winner=None, brief=None, reason="no"), None
    )
    run_folder.records.reject(bad)
    return spec.model_copy(update={"rows": 5, "shards": 2})


def test_has_a_line_for_each_row_with_an_outcome(run_folder: RunFolder, filled: RunSpec) -> None:
    build_manifest(run_folder, filled)
    manifest = read_manifest(run_folder)
    first, bad, failed, again = manifest.lines(*SCHEMA.names)
    assert [line["row"] for line in (first, bad, failed, again)] == [2, 3, 4, 6]
    assert list(manifest.lines("row")) == [{"row": row} for row in (2, 3, 4, 6)]
    assert again == first | {"row": 6}
    assert first == {
        "job_id": "accepted",
        "row": 2,
        "name": "A-1",
        "keywords": "red circle",
        "outcome": "accepted",
        "score": 0.9,
        "seed": 8,
        "prompt": "a red circle",
        "text": "A circle.",
        "image": first["image"],
        "perceptual_hash": first["perceptual_hash"],
        "reason": "",
        "sources": ["s.md"],
        "collection": "brand",
        "candidates": 2,
        "seconds": 1.5,
        "device_seconds": 0.25,
        "meta": '{"a": "ü", "b": "2"}',
    }
    assert run_folder.blob(first["image"])[:4] == b"\x89PNG"
    assert (bad["outcome"], bad["reason"]) == ("invalid", "column 'width': 'x' is no number")
    assert (failed["outcome"], failed["image"], failed["score"]) == ("failed", None, None)


def test_counts_name_every_verdict(run_folder: RunFolder, filled: RunSpec) -> None:
    build_manifest(run_folder, filled)
    expected = {"accepted": 2, "below_gate": 0, "invalid": 1, "blocked": 0, "failed": 1}
    assert counts(read_manifest(run_folder)) == expected


def test_built_again_it_is_the_same_file(run_folder: RunFolder, filled: RunSpec) -> None:
    first = build_manifest(run_folder, filled)
    run_folder.store.delete(run_folder.key("manifest.parquet"))
    assert build_manifest(run_folder, filled) == first == run_folder.blob("manifest.parquet")


def test_a_change_in_a_record_shows(
    run_folder: RunFolder,
    filled: RunSpec,
    make_job: Callable[..., Job],
    make_outcome: Callable[..., Outcome],
) -> None:
    before = build_manifest(run_folder, filled)
    run_folder.records.commit(
        make_outcome(make_job("unfinished", 5)), np.zeros((8, 8, 3), np.float32)
    )
    assert build_manifest(run_folder, filled) != before
    assert len(read_manifest(run_folder)) == 5


def test_a_run_without_outcomes_has_an_empty_manifest(run_folder: RunFolder, spec: RunSpec) -> None:
    build_manifest(run_folder, spec)
    manifest = read_manifest(run_folder)
    assert list(manifest.lines("row")) == []
    assert set(counts(manifest).values()) == {0}


def test_before_it_is_built_it_is_missing(run_folder: RunFolder) -> None:
    with pytest.raises(RunError, match=r"manifest\.parquet is missing"):
        read_manifest(run_folder)
