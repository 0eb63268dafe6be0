"""Opening a run: read the job file, write its shards and the spec, reject the bad rows."""

import re
import unicodedata
from collections.abc import Collection
from itertools import islice
from pathlib import Path

from pipeline.assemble import model_digests
from pipeline.errors import RunError
from pipeline.job import BadRow, Job, RunSpec, Status, digest_of, timestamp, version
from pipeline.jobfile.identity import file_digest
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.profile import Profile
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings


def asked_for(
    path: Path, overrides: Overrides, settings: Settings, run_folder: RunFolder
) -> RunSpec:
    """The spec of a run with this file: the stored one if it was opened before, else a new one with
    0 rows and shards. Raises ModelError.
    """
    profile = settings.chosen_profile
    spec = RunSpec(
        run=run_folder.run,
        job_file=path.name,
        job_folder=digest_of(str(path.resolve().parent)),
        job_file_digest=file_digest(path),
        rows=0,
        shards=0,
        profile=profile.model_dump(mode="json"),
        overrides=overrides.model_dump(mode="json"),
        models=model_digests(settings, profile),
        created_at=timestamp(),
        version=version(),
    )
    stored = run_folder.standing_spec()
    return stored if stored and stored.fingerprint == spec.fingerprint else spec


def open_run(
    path: Path, overrides: Overrides, settings: Settings, run_folder: RunFolder
) -> RunSpec:
    """Write the run's shards and spec; returns the spec.

    An existing run is opened again with this file: it keeps its records and takes this file's rows.
    The spec is written last, so that a run never names shards that are not stored. A file that was
    opened before is not read again. Raises ModelError and JobFileError before anything is written.
    """
    spec = asked_for(path, overrides, settings, run_folder)
    if spec.rows:
        return spec
    rows, count, source = 0, 0, read_jobs(path, settings.chosen_profile, overrides)
    while shard := list(islice(source, settings.shard)):
        count += 1
        run_folder.shards.write(spec.fingerprint, count, shard)
        run_folder.records.reject_all(row for row in shard if isinstance(row, BadRow))
        rows += len(shard)
    if not rows:
        raise RunError(f"{path} holds no rows.")
    spec = spec.model_copy(update={"rows": rows, "shards": count})
    run_folder.write_spec(spec)
    run_folder.shards.drop_others(spec.fingerprint)
    return spec


def taken_over(path: Path, overrides: Overrides, asked: RunSpec, run_folder: RunFolder) -> str:
    """A sentence on the consequences if the run was opened with another file or profile, else an
    empty one.
    """
    stored = run_folder.standing_spec()
    if stored is None or stored.fingerprint == asked.fingerprint:
        return ""
    profile = Profile.model_validate(asked.profile)
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
    recorded = set(run_folder.records.ids())
    known = [row.id in recorded for row in read_jobs(path, profile, overrides, lambda _: None)]
    return (
        f"run {run_folder.run} exists: {sum(known)} kept, {len(known) - sum(known)} new."
        f" It was opened {' and '.join(others)}."
    )


def forget(run_folder: RunFolder, spec: RunSpec, statuses: Collection[Status]) -> int:
    """Remove the records with these statuses, so that their jobs run again; returns the number."""
    count = 0
    if summary := run_folder.summary():
        run_folder.write_summary(summary | {"fingerprint": ""})  # no longer finished
    for shard in range(1, spec.shards + 1):
        jobs = {
            row.id
            for row in run_folder.shards.read(spec.fingerprint, shard)
            if isinstance(row, Job)
        }
        for outcome in run_folder.records.outcomes(sorted(jobs)):
            if outcome.status in statuses:
                run_folder.records.remove(outcome.job_id)
                count += 1
    return count


def run_name(path: Path) -> str:
    """The run's name when none is given: the job file's own, fit for a folder."""
    stem = unicodedata.normalize("NFC", path.stem)
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-.")[:64]
    if name and (re.search("[a-z]", name) or not any(map(str.isalpha, stem))):
        return name
    # little is left of names in other scripts: a digest keeps them apart
    return f"{name[:50] or 'run'}-{digest_of(stem)[:8]}"
