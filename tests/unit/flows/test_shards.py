"""The shards of a run in work: which rows are done again, and what is kept of them."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast

from flows.dispatch.dispatcher import Dispatcher
from flows.dispatch.opening import Opening
from flows.dispatch.progress import RunProgress
from flows.runs.lines import RunLines
from flows.runs.open import forget, open_run
from flows.session import Shards
from pipeline.assemble import open_run_folder
from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides
from pipeline.record import Outcome, Status
from pipeline.records.run_folder import RunFolder
from pipeline.settings import load_settings


class Inline:
    """A dispatcher that ends each job at once."""

    def __init__(self, run_folder: RunFolder, before: Callable[[Any], None]) -> None:
        self._run_folder, self._before = run_folder, before
        self.worked = list[tuple[str, int]]()

    def patiently(self, call: Callable[[], Any]) -> Any:
        self._before(call)
        return call()

    def work(self, shard: int, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.worked.append((job.model, shard))
            end(self._run_folder, job, Status.ACCEPTED)


def end(run_folder: RunFolder, job: Job | BadRow, status: Status) -> None:
    outcome = Outcome(run="r", job_id=job.id, status=status, row=job.row, keywords=job.keywords)
    run_folder.records.commit(outcome, None)


def test_lines_are_no_older_than_a_record_that_another_shard_makes_again(tmp_path: Path) -> None:
    settings = load_settings(store=str(tmp_path / "out"), shard=1)
    run_folder = open_run_folder(settings, "r")
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("keywords\nred circle\nred circle\n", encoding="utf-8")
    opening = Opening()
    with opening.reading():
        spec = open_run(jobs, Overrides(), settings, run_folder, opening.stored)
    (job,) = run_folder.shards.read(spec.fingerprint, 1)
    end(run_folder, job, Status.FAILED)

    def before(call: Any) -> None:
        """The second shard ends before the first one removes the record."""
        if isinstance(call, partial) and call.func is forget:
            shards.work(2)

    dispatcher = cast(Dispatcher, Inline(run_folder, before))
    shards = Shards(run_folder, opening, [Status.FAILED], dispatcher, RunProgress("r", []))
    shards.work(1)
    tables = RunLines(run_folder, spec).tables("outcome")
    assert [table["outcome"].to_pylist() for table in tables] == [["accepted"], ["accepted"]]


def test_a_models_jobs_of_all_shards_are_done_before_the_next_models(tmp_path: Path) -> None:
    profile = tmp_path / "three.toml"
    named = "".join(f'[renderers.{name}]\nkind = "a1111"\nmodel = "{name}"\n' for name in "ab")
    profile.write_text(f'extends = "shapes"\n{named}', encoding="utf-8")
    settings = load_settings(
        store=str(tmp_path / "out"), home=tmp_path, shard=3, profile=str(profile)
    )
    run_folder = open_run_folder(settings, "r")
    jobs = tmp_path / "jobs.csv"
    models = ["b", "a", "", "b", "x", "a", "b", "b", "", "x", "a", "a"]
    rows = [f"ring {number},{model}\n" for number, model in enumerate(models)]
    jobs.write_text("keywords,model\n" + "".join(rows) + "ring 0,b\n", encoding="utf-8")
    opening = Opening()
    with opening.reading():
        spec = open_run(jobs, Overrides(), settings, run_folder, opening.stored)

    def run() -> list[tuple[str, int]]:
        inline, progress = Inline(run_folder, lambda _: None), RunProgress("r", [])
        shards = Shards(run_folder, opening, [], cast(Dispatcher, inline), progress)
        for model, visited in shards.passes():
            for shard, most in visited:
                assert shards.work(shard, model) <= most
        snapshot = progress.snapshot()
        done = snapshot.done + len(inline.worked)  # which the real one counts
        assert (done, snapshot.counts) == (len(rows) + 1, {Status.INVALID: 2})
        return inline.worked

    assert run() == [
        ("", 1), ("", 3), ("a", 1), ("a", 2), ("a", 4), ("a", 4), ("b", 1), ("b", 2), ("b", 3),
        ("b", 3),
    ]  # fmt: skip
    lines = RunLines(run_folder, spec)
    assert all(lines.has(shard) for shard in range(1, spec.shards + 1))
    assert run() == []
