"""Opening a run: read the job file, write its spec and shards, reject the bad rows."""

import operator
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from flows.runs import lines
from pipeline.assemble.jobs import open_inputs, open_jobs, open_weights, weights_state
from pipeline.assemble.models import model_digests
from pipeline.errors import JobFileError, RunError
from pipeline.job import BadRow, digest_of
from pipeline.jobfile.identity import file_digest
from pipeline.jobfile.reader import Overrides, input_names
from pipeline.jobfile.rows import stem_of
from pipeline.profile import profile_of
from pipeline.record import RunSpec, Status, timestamp, version
from pipeline.records import shards
from pipeline.records.ids import IdSet
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings


def asked_for(
    path: Path, overrides: Overrides, settings: Settings, run_folder: RunFolder
) -> RunSpec:
    """The spec of a run with this file: the stored one if it was opened before, else a new one with
    0 rows and shards. Raises ModelError, JobFileError, ConfigError and StoreError.
    """
    profile = settings.chosen_profile
    spec = RunSpec(
        run=run_folder.run,
        job_file=path.name,
        job_folder=digest_of(str(path.resolve().parent)),
        job_file_digest=file_digest(path),
        rows=0,
        shards=0,
        shard_size=settings.shard,
        profile=profile.model_dump(mode="json"),
        overrides=overrides.model_dump(mode="json"),
        models=model_digests(settings, profile),
        weights=weights_state(open_weights(settings, profile)),
        inputs=open_inputs(settings, path).state(input_names(path)),
        created_at=timestamp(),
        version=version(),
    )
    stored = run_folder.standing_spec()
    return stored if stored and stored.fingerprint == spec.fingerprint else spec


def open_run(
    path: Path,
    overrides: Overrides,
    settings: Settings,
    run_folder: RunFolder,
    stored: Callable[[RunSpec], None] = lambda _: None,
    patiently: Callable[[Callable[[], Any]], Any] = operator.call,
) -> RunSpec:
    """Write the run's shards and spec; returns the spec.

    `stored` is called after each shard with the spec so far, whose jobs may start at once;
    `patiently` makes each call to the store while the file is read. An existing run is opened again
    with this file: it keeps its records and takes this file's rows. Until the file is read to its
    end the stored spec has 0 rows. A file that was opened before is not read again. Raises
    ModelError before anything is written; JobFileError for a file that cannot be read further, and
    then the run is as it was opened before; and RunError if the run is opened with another file
    meanwhile.
    """
    spec = asked_for(path, overrides, settings, run_folder)
    if spec.rows:
        stored(spec)
        return spec
    earlier = run_folder.standing_spec()
    source = open_jobs(path, overrides, settings, store=run_folder.store, patiently=patiently)
    try:
        while shard := list(islice(source, spec.shard_size)):
            if not spec.shards:
                patiently(partial(run_folder.write_spec, spec))
            spec = spec.model_copy(
                update={"rows": spec.rows + len(shard), "shards": spec.shards + 1}
            )
            bad = [row for row in shard if isinstance(row, BadRow)]
            patiently(partial(run_folder.shards.write, spec.fingerprint, spec.shards, shard))
            patiently(partial(run_folder.records.reject_all, bad))
            stored(spec)
    except JobFileError:
        if earlier and earlier.rows:
            run_folder.write_spec(earlier)
        raise
    if not spec.rows:
        raise RunError(f"{path} holds no rows.")
    if patiently(run_folder.spec).fingerprint != spec.fingerprint:
        raise RunError(f"run {spec.run} was opened with another file or profile meanwhile.")
    patiently(partial(run_folder.write_spec, spec))
    for folder in (shards.FOLDER, lines.FOLDER):
        patiently(partial(run_folder.drop, folder, but=spec.fingerprint))
    return spec


def reopened(run_folder: RunFolder) -> RunSpec:
    """The spec of a run to go on with. Raises RunError if there is none, or if its job file was not
    read to the end.
    """
    spec = run_folder.spec()
    if not spec.rows:
        raise RunError(
            f"{spec.job_file} was not read to its end when run {spec.run} was interrupted; submit"
            f" it once more: pressrun run {spec.job_file} --run {spec.run}. What is done is kept."
        )
    return spec


def as_far_as_read(run_folder: RunFolder) -> RunSpec:
    """The spec of a run; of one whose job file is not read to its end, with the rows and shards
    stored so far. Raises RunError if there is none.
    """
    spec = run_folder.spec()
    if spec.rows:
        return spec
    count = sum(1 for _ in run_folder.listing(f"{shards.FOLDER}{spec.fingerprint}/"))
    return spec.model_copy(update={"rows": count * spec.shard_size, "shards": count})


def taken_over(
    path: Path, overrides: Overrides, asked: RunSpec, run_folder: RunFolder, settings: Settings
) -> str:
    """A sentence on the consequences if the run was opened with another file or profile, else an
    empty one.
    """
    stored = run_folder.standing_spec()
    if stored is None or stored.fingerprint == asked.fingerprint:
        return ""
    profile = profile_of(asked)
    others = []
    moved = stored.job_folder and stored.job_folder != asked.job_folder
    if stored.job_file_digest != asked.job_file_digest and (
        moved or stored.job_file != asked.job_file
    ):
        others.append(f"with another file, {stored.job_file}")
    if stored.profile.get("name") != profile.name:
        others.append(f"under another profile, {stored.profile.get('name')}")
    if not others:
        return ""
    recorded = IdSet(run_folder.records.ids())
    rows = open_jobs(path, overrides, settings, lambda _: None)
    known = Counter(row.id in recorded for row in rows)
    return (
        f"run {run_folder.run} exists: {known[True]} kept, {known[False]} new."
        f" It was opened {' and '.join(others)}."
    )


def to_retry(
    run_folder: RunFolder, spec: RunSpec, statuses: Collection[Status], records: int
) -> set[Status]:
    """The statuses, of these, that some of the run's records may have; if there are any, the run
    no longer counts as finished, and its lines are removed before its records are.
    """
    summary = run_folder.summary()
    counts: Mapping[str, int] = summary
    if summary.get("fingerprint") != spec.fingerprint or summary.get("records") != records:
        # the summary is not of these records: any status may be among them
        counts = dict.fromkeys(statuses, records)
    found = {status for status in statuses if counts.get(status)}
    if found:
        run_folder.drop(lines.FOLDER)
    if found and summary:
        run_folder.write_summary(summary | {"fingerprint": ""})
    return found


def ended_as(
    run_folder: RunFolder, job_ids: Iterable[str], statuses: Collection[Status]
) -> set[str]:
    """The ids of the jobs, of these, whose records have one of these statuses."""
    return {
        outcome.job_id
        for outcome in run_folder.records.outcomes(job_ids)
        if outcome.status in statuses
    }


def forget(run_folder: RunFolder, job_ids: Iterable[str], statuses: Collection[Status]) -> set[str]:
    """Remove the records with these statuses, so that their jobs run again; returns their ids."""
    gone = ended_as(run_folder, job_ids, statuses)
    for job_id in gone:
        run_folder.records.remove(job_id)
    return gone


def run_name(path: Path) -> str:
    """The run's name when none is given: the job file's own, fit for a folder."""
    stem = unicodedata.normalize("NFC", stem_of(path))
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-.")[:64]
    if name and (re.search("[a-z]", name) or not any(map(str.isalpha, stem))):
        return name
    # little is left of names in other scripts: a digest keeps them apart
    return f"{name[:50] or 'run'}-{digest_of(stem)[:8]}"
