"""The Prefect flow that makes runs of the job files which somebody drops into a folder or bucket.

A file's way: at the top of the inbox, `working/`, then `done/` or `failed/`. Each step can be
taken again, by another inbox flow too, and then changes nothing: what content was claimed first,
and under which token, the store decides; that a token starts one flow run, Prefect does.
"""

import json
import os
import re
import tempfile
import time
import tomllib
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from pydantic import Field, ValidationError

from flows.context import BATCH, flow_settings, masked
from flows.runs.open import run_name
from flows.strays import LONGEST_NAME, safe_name, strays, wrong_name
from pipeline.assemble import open_run_folder, open_store_to_commit
from pipeline.errors import ConfigError, PressrunError, StoreError, TooLarge
from pipeline.job import FrozenModel, digest_of
from pipeline.jobfile.identity import file_digest
from pipeline.jobfile.reader import FORMATS
from pipeline.jobfile.rows import suffix_of
from pipeline.jobfile.values import readable
from pipeline.ports import DOCUMENT_LIMIT, Blob
from pipeline.profile import PROFILES, Profile
from pipeline.settings import Settings
from pipeline.storage.keys import check_key

PAUSE = 5.0
"""Seconds in which a file's size and time stand still before it is taken."""

OPTIONS: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}

OPTIONS_LIMIT = 64 * 1024
"""Bytes that a file of options may take."""

_JSON = "application/json"
_PLAIN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
_DIGEST = re.compile("[0-9a-f]{24}")
_SHOWN = 1000


class Options(FrozenModel):
    """What a file NAME.toml or NAME.json may say of a job file NAME.csv beside it."""

    run: str = Field(default="", description="the run's name; empty: the job file's own")
    collection: str | None = Field(default=None, pattern=_PLAIN)
    candidates: int | None = Field(default=None, ge=1, le=64)
    threshold: float | None = Field(default=None, ge=0, le=1)
    profile: str | None = None


class Claim(FrozenModel):
    """That some content was taken: it becomes one run, whatever brings it again."""

    name: str
    beside: str = Field(default="", description="the file with its options, if there is one")
    options: Options
    digest: str = Field(description="of the job file and its options")
    run: str
    token: str = Field(description="under which Prefect starts one flow run")
    settled: bool = Field(default=False, description="the run was finished")

    @property
    def key(self) -> str:
        """Where the claim itself is kept."""
        return f"claimed/{self.digest}.json"

    @property
    def folder(self) -> str:
        """Where its files lie while the run is worked on."""
        return f"working/{self.digest}/"


@flow(name="inbox", flow_run_name="inbox")
@masked()
def inbox() -> list[dict[str, str]]:
    """Make a run of each new job file in PRESSRUN_INBOX, and put away those that have ended.

    Answers what became of the files that are, or were just now, in it.
    """
    settings, logger = flow_settings(), get_run_logger()
    if not settings.inbox:
        raise ConfigError("PRESSRUN_INBOX is not set: name a folder, or s3://bucket/prefix.")
    tray = Tray(settings)
    tray.take()
    try:
        tray.settle()
    finally:
        news = tray.news
        if news:
            create_table_artifact(table=news, key="inbox", description="Files of the inbox")
        for line in news:
            logger.info("run %(run)s from %(file)s: %(state)s %(reason)s", line)
    return news


class Tray:
    """The inbox. `news` says what became of its files."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        place = settings.inbox.rstrip("/")
        self._address = place if "://" in place else str(Path(place).absolute())
        self._folder = None if "://" in place else Path(self._address)
        self._profiles = _profiles(settings)
        self._store = open_store_to_commit(settings.model_copy(update={"store": self._address}))
        self.news = list[dict[str, str]]()

    def take(self) -> None:
        """Bring the files that stand still on their way; a run has one file at a time. What cannot
        be taken is put away with the reason, and the others are taken.
        """
        self._sort_out()
        taken = {claim.run: claim.digest for claim in self._claims()}
        for name in self._still():
            if reason := wrong_name(name):
                self._refuse(name, "", reason)
                continue
            beside = ""
            try:
                beside = self._beside(name)
                self._take(name, beside, taken)
            except KeyError:
                continue  # another one took it
            except StoreError as error:
                self._tell(name, "", "waits", str(error))
            except Exception as error:  # noqa: BLE001 - the others are taken all the same
                self._refuse(name, beside, _reason(error))

    def _refuse(self, name: str, beside: str, reason: str) -> None:
        """Put a file away as failed; one that no store can name stays, and is told each time."""
        try:
            check_key(name)
            self._put_away(name, beside, "", "failed", {"reason": reason})
        except StoreError as error:
            self._tell(name, "", "waits", f"{reason}. {error}")

    def _take(self, name: str, beside: str, taken: dict[str, str]) -> None:
        claim = self._claim(name, beside)
        if claim.settled:
            facts = {"reason": "the same content was done before"}
            self._put_away(name, beside, claim.run, "done", facts)
            return
        if claim.name != name and claim.digest not in taken.values():
            claim = self._taken_over(claim, name, beside)
        if claim.name == name and taken.setdefault(claim.run, claim.digest) == claim.digest:
            self._move((name, beside), "", claim.folder)
        else:
            self._tell(name, claim.run, "waits", "an earlier file of the run is worked on")

    def _sort_out(self) -> None:
        """Put away what would stop a look at the folder. A bucket holds nothing of the kind."""
        if self._folder is None or not self._folder.is_dir():
            return
        for name, reason in list(strays(self._folder, {*FORMATS, *OPTIONS})):
            self._banish(self._folder, name, reason)
            if suffix_of(Path(name)) in OPTIONS:  # no run without what its file was to say
                for suffix in FORMATS:
                    jobs = self._folder / Path(name).with_suffix(suffix)
                    if os.path.lexists(jobs):
                        self._banish(self._folder, jobs.name, f"its options: {reason}")

    def _banish(self, folder: Path, name: str, reason: str) -> None:
        target = self._note(name, "", "failed", {"reason": reason})
        with suppress(FileNotFoundError):  # another one took it
            (folder / name).rename(folder / target)

    def settle(self) -> None:
        """See that each file on its way has its flow run, and put it away when that has ended.

        A file that this fails for waits, and stops no other; where it fails for all, as without a
        deployment, the first error is raised.
        """
        claims, errors = self._claims(), list[Exception]()
        for claim in claims:
            try:
                self._settle(claim)
            except Exception as error:  # noqa: BLE001 - the others are settled all the same
                errors.append(error)
                self._tell(claim.name, claim.run, "waits", _reason(error))
        if errors and len(errors) == len(claims):
            raise errors[0]

    def _settle(self, claim: Claim) -> None:
        state = self._flow_run(claim).state
        if state is None or not state.is_final():
            self._tell(claim.name, claim.run, state.name if state and state.name else "New", "")
        elif state.is_completed():
            summary = open_run_folder(self._settings, claim.run).summary()
            self._end(claim, "done", {"summary": summary})
            self._keep(claim.model_copy(update={"settled": True}))
        else:
            self._end(claim, "failed", {"reason": f"{state.name}: {state.message}"})
            self._store.delete(claim.key)

    def _claim(self, name: str, beside: str) -> Claim:
        """The claim on a file's content, ours or an earlier one. Raises KeyError for a file that is
        gone, ConfigError for its options.
        """
        options = self._options(beside)
        with tempfile.TemporaryDirectory(prefix="pressrun-inbox-") as folder:
            path = Path(folder, name)
            self._store.fetch(name, path)
            digest = digest_of([file_digest(path), options.model_dump(mode="json")])
        mine = Claim(
            name=name,
            beside=beside,
            options=options,
            digest=digest,
            run=options.run or run_name(Path(name)),
            token=uuid.uuid4().hex,
        )
        self._own(mine.run)
        return mine if self._keep(mine, new=True) else self._standing(mine.key)

    def _own(self, run: str) -> None:
        """Note that a run is the inbox's. Raises ConfigError for one that was made elsewhere."""
        marker = f"claimed/runs/{run}.json"
        # refuses what no run can be named
        snapshot = open_run_folder(self._settings, run).standing_spec()
        if snapshot is None:
            self._store.put(marker, b"{}", content_type=_JSON, new=True)
        elif marker not in set(self._store.keys(marker)):
            raise ConfigError(f"The run {run!r} was not made by the inbox; choose another name.")

    def _taken_over(self, claim: Claim, name: str, beside: str) -> Claim:
        """The claim under the name that its content has now; the same where the old one stands."""
        if claim.name in set(self._store.keys(claim.name)):
            return claim
        renamed = claim.model_copy(update={"name": name, "beside": beside})
        self._keep(renamed)
        return renamed

    def _beside(self, name: str) -> str:
        """The file beside a job file that says more of it; empty without one."""
        names = [Path(name).with_suffix(suffix).name for suffix in OPTIONS]
        return next((each for each in names if each in set(self._store.keys(each))), "")

    def _options(self, beside: str) -> Options:
        if not beside:
            return Options()
        try:
            parse = OPTIONS[suffix_of(Path(beside))]
            options = Options.model_validate(parse(self._store.get(beside, OPTIONS_LIMIT).decode()))
        except TooLarge as error:
            raise ConfigError(f"{beside}: longer than {OPTIONS_LIMIT // 1024} KB") from error
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise ConfigError(f"{beside}: {where}: {problem['msg']}") from error
        except ValueError as error:
            raise ConfigError(f"{beside}: {error}") from error
        except RecursionError as error:
            raise ConfigError(f"{beside}: it is nested too deep") from error
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
        return options.model_copy(update={"profile": chosen})

    def _claims(self) -> list[Claim]:
        """The claims on the files that are on their way."""
        found = list[Claim]()
        for digest in filter(_DIGEST.fullmatch, self._store.folders("working/")):
            try:
                found.append(self._standing(f"claimed/{digest}.json"))
            except (KeyError, ValidationError):
                # somebody has tidied up; the files are there still
                for key in list(self._store.keys(f"working/{digest}/")):
                    self._store.move(key, key.rpartition("/")[2])
        return found

    def _standing(self, key: str) -> Claim:
        return Claim.model_validate_json(self._store.get(key, DOCUMENT_LIMIT))

    def _keep(self, claim: Claim, *, new: bool = False) -> bool:
        data = claim.model_dump_json(indent=1).encode()
        return self._store.put(claim.key, data, content_type=_JSON, new=new)

    def _flow_run(self, claim: Claim) -> FlowRun:
        """The flow run that makes the claim's run: asked for again, Prefect answers the same."""
        options = claim.options
        asked = {
            "run": claim.run,
            "jobs": f"{self._address}/{claim.folder}{claim.name}",
            "overrides": options.model_dump(include={"collection", "candidates", "threshold"}),
            "profile": options.profile,
        }
        try:
            found = run_deployment(
                BATCH,
                parameters=asked,
                timeout=0,
                idempotency_key=claim.token,
                tags=["inbox"],
                as_subflow=False,
            )
        except ObjectNotFound:
            raise ConfigError(f"There is no deployment {BATCH}: run `pressrun deploy`.") from None
        return cast(FlowRun, found)

    def _end(self, claim: Claim, place: str, facts: dict[str, Any]) -> None:
        self._put_away(claim.name, claim.beside, claim.run, place, facts, claim.folder)
        if self._folder:
            with suppress(OSError):
                (self._folder / claim.folder).rmdir()

    def _put_away(
        self,
        name: str,
        beside: str,
        run: str,
        place: str,
        facts: dict[str, Any],
        folder: str = "",
    ) -> None:
        """Move a file to `place`, with a note beside it of what became of it."""
        target = self._note(name, run, place, facts)
        self._store.move(folder + name, target)
        if beside:
            at = target.removesuffix(suffix_of(Path(target)))
            self._store.move(folder + beside, at + suffix_of(Path(beside)))

    def _note(self, name: str, run: str, place: str, facts: dict[str, Any]) -> str:
        """Write what becomes of a file; answers where the file shall lie, beside its note."""
        now = datetime.now(UTC)
        if reason := facts.get("reason"):
            facts = facts | {"reason": readable(reason, _SHOWN)}
        shown = readable(name, LONGEST_NAME)
        event = {"file": shown, "run": run, "at": now.isoformat(timespec="seconds"), **facts}
        data = json.dumps(event, indent=1, ensure_ascii=False).encode()
        # an edited file comes again under the same name, perhaps within the second
        for again in count():
            mark = f"-{again}" if again else ""
            target = f"{place}/{now:%Y%m%dT%H%M%S}{mark}-{safe_name(name)}"
            if self._store.put(f"{target}.summary.json", data, content_type=_JSON, new=True):
                break
        self._tell(name, run, place, facts.get("reason", ""))
        return target

    def _move(self, names: Iterable[str], source: str, target: str) -> None:
        for name in filter(None, names):
            self._store.move(source + name, target + name)

    def _tell(self, name: str, run: str, state: str, reason: str) -> None:
        shown = readable(name, LONGEST_NAME)
        self.news.append({"file": shown, "run": run, "state": state, "reason": reason})

    def _still(self) -> list[str]:
        """The job files at the top that nobody is writing any more."""
        first = {blob.key: blob.bytes for blob in self._files()}
        if not first:
            return []
        time.sleep(PAUSE)
        still = [b for b in self._files() if first.get(b.key) == b.bytes and b.age >= PAUSE]
        return [blob.key for blob in still]

    def _files(self) -> Iterator[Blob]:
        for blob in self._store.listing(""):
            name = blob.key
            if "/" not in name and name[0] != "." and suffix_of(Path(name)) in FORMATS:
                yield blob


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PressrunError) else f"{type(error).__name__}: {error}"


def _profiles(settings: Settings) -> dict[str, str]:
    """What a file in the inbox may name as its profile, and where each lies."""
    listed = list(filter(None, map(str.strip, settings.inbox_profiles.split(","))))
    known = {path.stem: path.stem for path in PROFILES.glob("*.toml")}
    return known | {Path(each).stem: each for each in listed}
