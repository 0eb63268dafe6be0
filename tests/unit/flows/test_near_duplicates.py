"""Near-duplicates among a run's kept images."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flows.runs import near_duplicates as module
from flows.runs.near_duplicates import BITS, LEVELS, SHOWN, earliest_like, near_duplicates
from flows.runs.open import open_run
from flows.runs.publish import publish
from pipeline.job import Job
from pipeline.jobfile.reader import Overrides
from pipeline.record import ImageRecord
from pipeline.records.columns import table_of
from pipeline.records.manifest import COLUMNS, Manifest, build_manifest
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings
from tests.harness.jobs import make_job, make_outcome

Hashes = NDArray[np.uint8]


def reference(hashes: Hashes) -> list[int]:
    """The earliest one before each that is nearly equal, by comparing all pairs."""
    found = [len(hashes)] * len(hashes)
    for at in range(len(hashes)):
        for earlier in range(at):
            bits = int(np.bitwise_count(hashes[at, :8] ^ hashes[earlier, :8]).sum())
            levels = np.abs(hashes[at, 8:].astype(int) - hashes[earlier, 8:]).max()
            if bits <= BITS and levels <= LEVELS:
                found[at] = earlier
                break
    return found


def drawn(seed: int, kinds: int, count: int) -> Hashes:
    """Hashes of a few kinds, each with some bits turned and its colours a little off."""
    draws = np.random.default_rng(seed)
    known = draws.integers(0, 256, (kinds, 20), dtype=np.uint8)
    known[:, 8:] = draws.integers(10, 30, (kinds, 12))
    hashes = known[draws.integers(0, kinds, count)]
    for each in hashes:
        for bit in draws.integers(0, 64, draws.integers(0, 5)):
            each[bit // 8] ^= np.uint8(1 << (bit % 8))
    hashes[:, 8:] += draws.integers(0, 6, (count, 12), dtype=np.uint8)
    return hashes


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 40))
def test_those_found_are_those_of_all_pairs(seed: int, kinds: int, count: int) -> None:
    hashes = drawn(seed, kinds, count)
    assert earliest_like(hashes).tolist() == reference(hashes)


def test_the_work_is_bounded_where_very_many_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 4)
    hashes = np.repeat(drawn(1, 1, 1), 5000, 0)
    found = earliest_like(hashes)
    assert found[0] == 5000
    assert (found[1:] < 5000).all(), "an exact copy was missed"


def manifest_of(run_folder: RunFolder, hashes: list[str], ids: list[int] | None = None) -> Manifest:
    """Of jobs whose images have these hashes; an empty one is that of an older record."""
    outcomes = []
    for row, (each, number) in enumerate(
        zip(hashes, ids or range(len(hashes)), strict=True), start=2
    ):
        job = make_job(number)
        image = ImageRecord(
            path=f"images/{job.id}-{'0' * 12}.png",
            sha256="0" * 64,
            width=8,
            height=8,
            perceptual_hash=each,
        )
        outcomes.append(make_outcome(job, row=row, image=image))
    return Manifest(build_manifest(run_folder, [table_of(COLUMNS, outcomes)]))


ONE, OTHER = "0f" * 20, "f0" * 20


def test_a_job_that_repeats_an_earlier_one_is_named(run_folder: RunFolder) -> None:
    near = f"{'0f' * 7}0e{'0f' * 12}"
    manifest = manifest_of(run_folder, [OTHER, ONE, "", near, "", OTHER])
    assert near_duplicates(manifest) == {
        "near_duplicates": 2,
        "near_duplicate_rows": "5 of 3, 7 of 2",
    }


def test_equal_rows_repeat_nothing(run_folder: RunFolder) -> None:
    assert near_duplicates(manifest_of(run_folder, [ONE, ONE], ids=[0, 0])) == {}
    assert near_duplicates(manifest_of(run_folder, [])) == {}


def test_the_first_rows_are_named_and_the_others_counted(run_folder: RunFolder) -> None:
    found = near_duplicates(manifest_of(run_folder, [ONE] * (SHOWN + 4)))
    assert found["near_duplicates"] == SHOWN + 3
    assert found["near_duplicate_rows"].endswith("21 of 2, 22 of 2, and 3 more")


def test_a_published_run_says_how_many_images_look_alike(
    jobs: Path, settings: Settings, run_folder: RunFolder
) -> None:
    spec = open_run(jobs, Overrides(), settings, run_folder)
    image = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    rows = [
        row
        for shard in range(1, spec.shards + 1)
        for row in run_folder.shards.read(spec.fingerprint, shard)
    ]
    for row, darker in zip([row for row in rows if isinstance(row, Job)], (1, 0.99), strict=True):
        outcome = make_outcome(row, run="r")
        run_folder.records.commit(outcome, image * np.float32(darker))
    summary = publish(run_folder, spec, seconds=0.0)
    assert (summary["near_duplicates"], summary["near_duplicate_rows"]) == (1, "4 of 2")
    assert run_folder.summary()["near_duplicates"] == 1
