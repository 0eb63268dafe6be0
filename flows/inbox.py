"""The Prefect flow that makes runs of the job files dropped into a folder or bucket.

A file goes from the top of the inbox to `working/`, then to `done/` or `failed/`; see TRANSITIONS.
Each step is idempotent, also between several inbox flows: the store's create-once claim decides
which file and token stand for some content, and Prefect starts one flow run for a token.
"""

import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from flows.context import BATCH, flow_settings, masked
from flows.inbox_files import (
    LONGEST_NAME,
    OPTIONS,
    Claim,
    InboxFile,
    Options,
    State,
    read_options,
    safe_name,
    strays,
    wrong_name,
)
from flows.runs.open import run_name
from pipeline.assemble.stores import open_run_folder, open_store_to_commit
from pipeline.errors import ConfigError, PressrunError, StoreError, TooLarge
from pipeline.job import digest_of
from pipeline.jobfile.identity import file_digest
from pipeline.jobfile.reader import FORMATS
from pipeline.jobfile.reading import LIMIT as READING_LIMIT
from pipeline.jobfile.reading import SUFFIX
from pipeline.jobfile.rows import stem_of, suffix_of
from pipeline.jobfile.values import readable
from pipeline.ports import DOCUMENT_LIMIT, Blob
from pipeline.profile import PROFILES, Profile
from pipeline.settings import Settings
from pipeline.storage.keys import check_key

PAUSE = 5.0
"""Seconds without a change of size or time before a file is claimed."""

OPTIONS_LIMIT = 64 * 1024
"""The largest file of options, in bytes."""

JOB_FILES = FORMATS.keys() - OPTIONS.keys()
"""The suffixes of job files; a .json holds options."""

_JSON = "application/json"
_DIGEST = re.compile("[0-9a-f]{24}")
_SHOWN = 1000


@flow(name="inbox", flow_run_name="inbox")
@masked()
def inbox() -> list[dict[str, str]]:
    """Make a run of each new job file in PRESSRUN_INBOX, and archive the files of ended runs.

    Returns file, run, state and reason of every file that is or was just now in the inbox.
    """
    settings, logger = flow_settings(), get_run_logger()
    if not settings.inbox:
        raise ConfigError("PRESSRUN_INBOX is not set: name a folder, or s3://bucket/prefix.")
    files = Inbox(settings)
    files.claim()
    try:
        files.archive()
    finally:
        results = files.results
        if results:
            create_table_artifact(table=results, key="inbox", description="Files of the inbox")
        for line in results:
            logger.info("run %(run)s from %(file)s: %(state)s %(reason)s", line)
    return results


class Inbox:
    """The inbox of the settings; `results` has a line for each file seen."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        place = settings.inbox.rstrip("/")
        self._address = place if "://" in place else str(Path(place).absolute())
        self._folder = None if "://" in place else Path(self._address)
        self._profiles = _profiles(settings)
        self._store = open_store_to_commit(settings.model_copy(update={"store": self._address}))
        self.results = list[dict[str, str]]()

    def claim(self) -> None:
        """Claim the files at rest, one at a time for each run. Refused files are archived as
        failed, and the others are claimed all the same.
        """
        if self._folder and self._folder.is_dir():
            self._refuse_strays(self._folder)
        working = {claim.run: claim.digest for claim in self._claims()}
        for name in self._at_rest():
            file = InboxFile(name)
            if reason := wrong_name(name):
                self._refuse(file, reason)
                continue
            try:
                *options, columns = _beside(name)
                there = (each for each in options if self._store.has(each))
                columns = columns if self._store.has(columns) else ""
                file = InboxFile(name, next(there, ""), columns=columns)
                self._claim(file, working)
            except KeyError:
                continue  # another inbox flow took it
            except StoreError as error:
                self._report(name, "", "waits", str(error))
            except Exception as error:  # noqa: BLE001 - the others are claimed all the same
                self._refuse(file, _reason(error))

    def archive(self) -> None:
        """Start the flow run of each claimed file, once, and archive the file when it has ended.

        A file with an error waits and stops no other; if all have errors, as without a deployment,
        the first error is raised.
        """
        claims, errors = self._claims(), list[Exception]()
        for claim in claims:
            try:
                state = self._flow_run(claim).state
                if state is None or not state.is_final():
                    shown = state.name if state and state.name else "New"
                    self._report(claim.name, claim.run, shown, "")
                elif state.is_completed():
                    summary = open_run_folder(self._settings, claim.run).summary()
                    self._archive(claim.file, State.DONE, {"summary": summary})
                    self._keep(claim.model_copy(update={"settled": True}))
                else:
                    facts = {"reason": f"{state.name}: {state.message}"}
                    self._archive(claim.file, State.FAILED, facts)
                    self._store.delete(claim.key)
            except Exception as error:  # noqa: BLE001 - the others are archived all the same
                errors.append(error)
                self._report(claim.name, claim.run, "waits", _reason(error))
        if errors and len(errors) == len(claims):
            raise errors[0]

    def _refuse_strays(self, folder: Path) -> None:
        """Archive the entries of a local folder that are no plain files with a usable name."""
        for name, reason in list(strays(folder, {*JOB_FILES, *OPTIONS})):
            refused = {name: reason}
            if suffix_of(Path(name)) in OPTIONS:
                # a job file does not run without what was meant for it
                jobs = [stem_of(Path(name)) + suffix for suffix in JOB_FILES]
                if name.endswith(SUFFIX):
                    jobs = [name.removesuffix(SUFFIX)]
                refused |= {
                    each: f"its {'columns' if name.endswith(SUFFIX) else 'options'}: {reason}"
                    for each in jobs
                    if os.path.lexists(folder / each)
                }
            for each, why in refused.items():
                target = self._summarise(InboxFile(each).to(State.FAILED), {"reason": why})
                with suppress(FileNotFoundError):  # another inbox flow took it
                    (folder / each).rename(folder / target)

    def _refuse(self, file: InboxFile, reason: str) -> None:
        """Archive a file as failed. One that no store can name stays, and is reported each time."""
        try:
            check_key(file.name)
            self._archive(file, State.FAILED, {"reason": reason})
        except StoreError as error:
            self._report(file.name, "", "waits", f"{reason}. {error}")

    def _claim(self, file: InboxFile, working: dict[str, str]) -> None:
        """Claim a file's content and move it to working/, unless the content is done or another
        file of the run is in `working`. Raises KeyError if the file is gone, ConfigError for its
        options.
        """
        options = self._options(file.sidecar)
        with tempfile.TemporaryDirectory(prefix="pressrun-inbox-") as folder:
            path = Path(folder, file.name)
            self._store.fetch(file.name, path)
            if file.columns:
                try:
                    said = self._store.get(file.columns, READING_LIMIT)
                except TooLarge as error:
                    limit = f"longer than {READING_LIMIT // 1024} KB"
                    raise ConfigError(f"{file.columns}: {limit}") from error
                path.with_name(file.columns).write_bytes(said)
            digest = digest_of([file_digest(path), options.model_dump(mode="json")])
        claim = Claim(
            name=file.name,
            beside=file.sidecar,
            columns=file.columns,
            options=options,
            digest=digest,
            run=options.run or run_name(Path(file.name)),
            token=uuid.uuid4().hex,
        )
        self._own(claim.run)
        if not self._keep(claim, new=True):
            claim = self._stored(claim.key)
        if claim.settled:
            facts = {"reason": "the same content was done before"}
            self._archive(replace(file, run=claim.run), State.DONE, facts)
            return
        idle = claim.name != file.name and claim.digest not in working.values()
        if idle and claim.name not in set(self._store.keys(claim.name)):
            # the file that claimed the content under another name is gone: this one replaces it
            claim = claim.model_copy(
                update={"name": file.name, "beside": file.sidecar, "columns": file.columns}
            )
            self._keep(claim)
        if claim.name == file.name and working.setdefault(claim.run, claim.digest) == claim.digest:
            target = replace(file, digest=claim.digest).to(State.WORKING).folder
            for name in file.names:
                self._store.move(name, target + name)
        else:
            self._report(file.name, claim.run, "waits", "an earlier file of the run is worked on")

    def _own(self, run: str) -> None:
        """Mark a run as made by the inbox. Raises ConfigError if it was made elsewhere."""
        marker = f"claimed/runs/{run}.json"
        # opening it refuses a name that no run can have
        spec = open_run_folder(self._settings, run).standing_spec()
        if spec is None:
            self._store.put(marker, b"{}", content_type=_JSON, new=True)
        elif marker not in set(self._store.keys(marker)):
            raise ConfigError(f"The run {run!r} was not made by the inbox; choose another name.")

    def _options(self, beside: str) -> Options:
        """A sidecar's options, with the place of the profile. Raises ConfigError."""
        if not beside:
            return Options()
        try:
            options = read_options(beside, self._store.get(beside, OPTIONS_LIMIT))
        except TooLarge as error:
            raise ConfigError(f"{beside}: longer than {OPTIONS_LIMIT // 1024} KB") from error
        if options.profile is None:
            return options
        if options.profile not in self._profiles:
            known = ", ".join(sorted(self._profiles))
            raise ConfigError(f"{beside}: profile is none of {known}; see PRESSRUN_INBOX_PROFILES")
        chosen = self._profiles[options.profile]
        own = self._settings.chosen_profile.retrieval
        if own.allowed and not Profile.load(chosen).retrieval.allowed:
            raise ConfigError(
                f"{beside}: profile {options.profile} names no retrieval.allowed, as that of"
                " PRESSRUN_PROFILE does; let it extend that one"
            )
        placed: Options = options.model_copy(update={"profile": chosen})
        return placed

    def _claims(self) -> list[Claim]:
        """The claims of the files in working/."""
        found = list[Claim]()
        for digest in filter(_DIGEST.fullmatch, self._store.folders("working/")):
            try:
                found.append(self._stored(f"claimed/{digest}.json"))
            except (KeyError, ValidationError):
                # the claim was removed: its files are new again
                for key in list(self._store.keys(f"working/{digest}/")):
                    self._store.move(key, key.rpartition("/")[2])
        return found

    def _stored(self, key: str) -> Claim:
        return Claim.model_validate_json(self._store.get(key, DOCUMENT_LIMIT))

    def _keep(self, claim: Claim, *, new: bool = False) -> bool:
        data = claim.model_dump_json(indent=1).encode()
        return self._store.put(claim.key, data, content_type=_JSON, new=new)

    def _flow_run(self, claim: Claim) -> FlowRun:
        """Start the flow run of a claim; for a known token Prefect returns the same one."""
        options, folder = claim.options, claim.file.folder
        if claim.columns and not self._store.has(folder + claim.columns):
            # whoever claimed the file was stopped before this one was moved too
            self._store.move(claim.columns, folder + claim.columns)
        parameters = {
            "run": claim.run,
            "jobs": f"{self._address}/{folder}{claim.name}",
            "overrides": options.model_dump(exclude={"run", "profile"}),
            "profile": options.profile,
        }
        try:
            found = run_deployment(
                BATCH,
                parameters=parameters,
                timeout=0,
                idempotency_key=claim.token,
                tags=["inbox"],
                as_subflow=False,
            )
        except ObjectNotFound:
            raise ConfigError(f"There is no deployment {BATCH}: run `pressrun deploy`.") from None
        return cast(FlowRun, found)

    def _archive(self, file: InboxFile, state: State, facts: dict[str, Any]) -> None:
        """Move a file and its sidecar to done/ or failed/, beside a summary with these facts;
        nothing where another look has done so.
        """
        if not any(self._store.has(file.folder + name) for name in file.names):
            return
        target = self._summarise(file.to(state), facts)
        self._store.move(file.folder + file.name, target)
        if file.sidecar:
            stem = target.removesuffix(suffix_of(Path(target)))
            self._store.move(file.folder + file.sidecar, stem + suffix_of(Path(file.sidecar)))
        if file.columns:
            self._store.move(file.folder + file.columns, target + SUFFIX)
        if self._folder and file.state is State.WORKING:
            with suppress(OSError):
                (self._folder / file.folder).rmdir()

    def _summarise(self, file: InboxFile, facts: dict[str, Any]) -> str:
        """Write the summary of an archived file; returns the key for the file, beside it."""
        now = datetime.now(UTC)
        if reason := facts.get("reason"):
            facts = facts | {"reason": readable(reason, _SHOWN)}
        shown = readable(file.name, LONGEST_NAME)
        event = {"file": shown, "run": file.run, "at": now.isoformat(timespec="seconds"), **facts}
        data = json.dumps(event, indent=1, ensure_ascii=False).encode()
        # an edited file comes again under the same name, perhaps within the second
        for again in count():
            mark = f"-{again}" if again else ""
            target = f"{file.state}/{now:%Y%m%dT%H%M%S}{mark}-{safe_name(file.name)}"
            if self._store.put(f"{target}.summary.json", data, content_type=_JSON, new=True):
                break
        self._report(file.name, file.run, file.state, facts.get("reason", ""))
        return target

    def _report(self, name: str, run: str, state: str, reason: str) -> None:
        shown = readable(name, LONGEST_NAME)
        self.results.append({"file": shown, "run": run, "state": str(state), "reason": reason})

    def _at_rest(self) -> list[str]:
        """The job files at the top that are not being written any more, nor is what lies beside."""
        first = {blob.key: blob.bytes for blob in self._files()}
        if not any(map(_is_job_file, first)):
            return []
        time.sleep(PAUSE)
        now = list(self._files())
        written = {b.key for b in now if first.get(b.key) != b.bytes or b.age < PAUSE}
        names = [blob.key for blob in now if _is_job_file(blob.key)]
        return [name for name in names if written.isdisjoint([name, *_beside(name)])]

    def _files(self) -> Iterator[Blob]:
        """The job files at the top, and the files of options and columns."""
        for blob in self._store.listing(""):
            name = blob.key
            usable = _is_job_file(name) or suffix_of(Path(name)) in OPTIONS
            if "/" not in name and name[0] != "." and usable:
                yield blob


def _is_job_file(name: str) -> bool:
    return suffix_of(Path(name)) in JOB_FILES


def _beside(name: str) -> list[str]:
    """The names that files of options for a job file may have, and that of its columns."""
    return [*(stem_of(Path(name)) + suffix for suffix in OPTIONS), name + SUFFIX]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PressrunError) else f"{type(error).__name__}: {error}"


def _profiles(settings: Settings) -> dict[str, str]:
    """The profiles that a file in the inbox may name, each with its place."""
    listed = list(filter(None, map(str.strip, settings.inbox_profiles.split(","))))
    known = {path.stem: path.stem for path in PROFILES.glob("*.toml")}
    return known | {Path(each).stem: each for each in listed}
