"""Exports are read by those that they are for, are whole or not there, and replace their own."""

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from flows.runs.export import formats
from flows.runs.export.export import NAMES, ExportError, Form, export_run
from flows.runs.open import open_run
from pipeline.assemble.stores import open_run_folder
from pipeline.errors import RunError
from pipeline.job import Brief, Context, Job, Passage, Reference, Score
from pipeline.jobfile.reader import Overrides
from pipeline.record import CandidateRecord, Outcome, Status
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings, load_settings

FORMS: tuple[Form, ...] = ("jsonl", "parquet", "webdataset", "imagefolder")
JOBS = """id,keywords,steps,meta.product
a,red circle,2,mug
b,blue star,2,
c,green ring,x,
d,red circle again,2,"größe ""L"" x"
a,red circle,2,mug
e,blocked,2,
f,left,2,
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(store=str(tmp_path / "out"), shard=3)


@pytest.fixture
def run_folder(settings: Settings, tmp_path: Path) -> RunFolder:
    """Two accepted jobs, one below its gate, a blocked one, a bad row, an equal and an open one."""
    (tmp_path / "jobs.csv").write_text(JOBS, encoding="utf-8")
    run_folder = open_run_folder(settings, "r")
    spec = open_run(tmp_path / "jobs.csv", Overrides(), settings, run_folder)
    ends = {"b": Status.BELOW_GATE, "e": Status.BLOCKED}
    for shard in range(1, spec.shards + 1):
        for row in run_folder.shards.read(spec.fingerprint, shard):
            if isinstance(row, Job) and row.name != "f":
                commit(run_folder, row, ends.get(row.name, Status.ACCEPTED))
    return run_folder


def commit(run_folder: RunFolder, job: Job, status: Status) -> Outcome:
    passage = Passage(id="p", text="t", title="T", source="s.md", license="CC0-1.0", score=0.5)
    image = Reference(
        id="q",
        text="",
        source="q.png",
        score=0.25,
        image=f"knowledge/images/{0:064x}.png",
        scale=0.5,
    )
    kept = status is not Status.BLOCKED
    seen = (CandidateRecord(index=0, seed=job.seed, score=Score(raw=0.3, calibrated=0.9)),)
    outcome = Outcome(
        run=run_folder.run, job_id=job.id, status=status, job=job, row=job.row,
        keywords=job.keywords, context=Context(passages=(passage,), references=(image,)),
        brief=Brief(text=f"Text of {job.name}.", prompt="a prompt", negative="blur"),
        candidates=seen if kept else (), winner=0 if kept else None, models={"judge": "12ab"},
        seconds={"write": 1.0, "render": 2.0}, device_seconds={"renderer": 0.5, "judge": 0.25},
        created_at="2026-01-01T00:00:00+00:00", notices=("the prompt was cut",),
    )  # fmt: skip
    colour = np.full((16, 16, 3), job.row / 9, np.float32)
    return run_folder.records.commit(outcome, colour if kept else None)


def test_every_column_is_described() -> None:
    document = (Path(__file__).parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
    fields = document.split("\n## Fields of a job\n")[1].split("\n## ")[0]
    assert set(NAMES) <= set(re.findall(r"`([a-z_0-9]+)`", fields))


def test_tables_hold_every_job_once(
    run_folder: RunFolder, settings: Settings, tmp_path: Path
) -> None:
    report = export_run("r", "jsonl", settings, tmp_path / "r.jsonl")
    assert (report["jobs"], report["unfinished"]) == (5, 1)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    ends = ["accepted", "below_gate", "invalid", "accepted", "blocked"]
    assert [line["status"] for line in lines] == ends
    assert [line["row"] for line in lines] == [2, 3, 4, 5, 7]
    first, bad, fourth = lines[0], lines[2], lines[3]
    assert first["sources"] == [
        {"kind": "text", "id": "p", "title": "T", "source": "s.md", "license": "CC0-1.0",
         "score": 0.5, "used": False},
        {"kind": "image", "id": "q", "title": "", "source": "q.png", "license": "",
         "score": 0.25, "used": True},
    ]  # fmt: skip
    assert first["candidates"] == [
        {"index": 0, "seed": first["seed"], "score": 0.9, "raw": 0.3, "invalid": None}
    ]
    assert (first["seconds"], first["device_seconds"]) == (3, 0.75)
    assert first["models"] == {"judge": "12ab"}
    assert (first["notices"], bad["notices"]) == (["the prompt was cut"], [])
    assert fourth["meta"] == {"product": 'größe "L" x'}
    assert (bad["image_path"], bad["text"], bad["meta"]) == (None, None, {})
    assert "steps" in bad["reason"]
    assert Path(first["image_path"]).read_bytes()[:4] == b"\x89PNG"


def test_parquet_says_the_same_as_jsonl(
    run_folder: RunFolder, settings: Settings, tmp_path: Path
) -> None:
    export_run("r", "jsonl", settings, tmp_path / "r.jsonl", [Status.ACCEPTED])
    export_run("r", "parquet", settings, tmp_path / "r.parquet", [Status.ACCEPTED])
    rows = pq.read_table(tmp_path / "r.parquet").to_pylist()
    for row in rows:
        row |= {"models": json.loads(row["models"]), "meta": json.loads(row["meta"])}
    lines = (tmp_path / "r.jsonl").read_text("utf-8").splitlines()
    assert rows == [json.loads(line) for line in lines]
    assert len(rows) == 2


def test_webdataset_reads_its_samples(
    run_folder: RunFolder, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "SAMPLES", 2)
    statuses = [Status.ACCEPTED, Status.BELOW_GATE, Status.BLOCKED]
    report = export_run("r", "webdataset", settings, tmp_path / "w", statuses)
    assert (report["jobs"], report["without_image"], report["shards"]) == (3, 1, 2)
    shards = [str(tmp_path / "w" / f"{number:06}.tar") for number in range(2)]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    assert [sample["txt"] for sample in samples] == ["Text of a.", "Text of b.", "Text of d."]
    for sample in samples:
        assert sample["__key__"] == sample["json"]["job_id"]
        assert sample["png"].shape == (16, 16, 3)
        assert abs(int(sample["png"].mean()) - sample["json"]["row"] / 9 * 255) < 1


def test_a_shard_ends_when_it_is_large(
    run_folder: RunFolder, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "BYTES", 1)
    assert export_run("r", "webdataset", settings, tmp_path / "w")["shards"] == 2
    with tarfile.open(tmp_path / "w" / "000001.tar") as tar:
        assert len(tar.getnames()) == 3


def test_equal_books_give_equal_shards(
    run_folder: RunFolder, settings: Settings, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        export_run("r", "webdataset", settings, tmp_path / name)
    one, two = ((tmp_path / name / "000000.tar").read_bytes() for name in ("one", "two"))
    assert one == two


def test_hugging_face_reads_the_image_folder(
    run_folder: RunFolder, settings: Settings, tmp_path: Path
) -> None:
    from datasets import Image, load_dataset  # with pandas, a second of each start

    export_run("r", "imagefolder", settings, tmp_path / "images")
    found: Any = load_dataset(
        "imagefolder", data_dir=str(tmp_path / "images"), split="train",
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    assert isinstance(found.features["image"], Image)
    assert [row["text"] for row in found.sort("row")] == ["Text of a.", "Text of d."]
    assert [json.loads(row["meta"]) for row in found.sort("row")][1] == {"product": 'größe "L" x'}
    assert found[0]["image"].size == (16, 16)


@pytest.mark.parametrize("form", FORMS)
def test_an_export_replaces_its_own_and_nothing_else(
    run_folder: RunFolder, settings: Settings, tmp_path: Path, form: Form
) -> None:
    out = tmp_path / "exported"
    export_run("r", form, settings, out, [Status.BELOW_GATE])
    assert export_run("r", form, settings, out)["jobs"] > 1
    other = next(other for other in FORMS if other != form)
    with pytest.raises(ExportError, match="exported"):
        export_run("r", other, settings, out)
    if out.is_dir():
        (out / "notes.txt").write_text("mine")
    else:
        out.write_text('{"mine": 1}\n')
    with pytest.raises(ExportError):
        export_run("r", form, settings, out)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_interrupted_leaves_all_as_it_was(
    run_folder: RunFolder, settings: Settings, tmp_path: Path, form: Form
) -> None:
    out = tmp_path / "here" / "exported"
    export_run("r", form, settings, out)
    before = {p: p.read_bytes() for p in out.parent.rglob("*") if p.is_file()}
    for outcome in run_folder.records.outcomes(run_folder.records.ids()):
        if outcome.status is Status.ACCEPTED:
            last = outcome
    run_folder.write(f"records/{last.job_id}.json", b"{}", "application/json")
    with pytest.raises(RunError, match="damaged"):
        export_run("r", form, settings, out)
    assert {p: p.read_bytes() for p in out.parent.rglob("*") if p.is_file()} == before


def test_an_image_that_is_another_one_is_not_exported(
    run_folder: RunFolder, settings: Settings, tmp_path: Path
) -> None:
    image = next(o.image for o in run_folder.records.outcomes(run_folder.records.ids()) if o.image)
    run_folder.write(image.path, b"another one", "image/png")
    with pytest.raises(RunError, match="not the image"):
        export_run("r", "webdataset", settings, tmp_path / "w", list(Status))
    assert not (tmp_path / "w").exists()
