"""The Prefect flow that makes runs of the job files which somebody drops into a folder or bucket.

A file's way: at the top of the inbox, `working/`, then `done/` or `failed/`. Each step can be
taken again, by another inbox flow too, and then changes nothing: what content was claimed first,
and under which token, the store decides; that a token starts one flow run, Prefect does.
"""

import json
import tempfile
import time
import tomllib
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from pydantic import Field, ValidationError

from flows.deployed import BATCH, flow_settings, masked
from flows.opening import run_name
from pipeline.assemble import open_books, open_store_to_commit
from pipeline.errors import ConfigError, JobFileError
from pipeline.intake.identity import file_digest
from pipeline.intake.reader import FORMATS
from pipeline.intake.rows import suffix_of
from pipeline.job import Noun, digest_of
from pipeline.ports import Blob
from pipeline.settings import Settings

PAUSE = 5.0
"""Seconds in which a file's size and time stand still before it is taken."""

OPTIONS: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}

_JSON = "application/json"


class Options(Noun):
    """What a file NAME.toml or NAME.json may say of a job file NAME.csv beside it."""

    run: str = Field(default="", description="the run's name; empty: the job file's own")
    collection: str | None = None
    candidates: int | None = Field(default=None, ge=1, le=64)
    threshold: float | None = Field(default=None, ge=0, le=1)
    profile: str | None = None


class Claim(Noun):
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
    tray.settle()
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
        self._store = open_store_to_commit(settings.model_copy(update={"store": self._address}))
        self.news = list[dict[str, str]]()

    def take(self) -> None:
        """Bring the files that stand still on their way; a run has one file at a time."""
        taken = {claim.run: claim.digest for claim in self._claims()}
        for name in self._still():
            beside = self._beside(name)
            try:
                claim = self._claim(name, beside)
            except KeyError:
                continue  # another one took it
            except (ConfigError, JobFileError) as error:
                self._put_away(name, beside, "", "failed", {"reason": str(error)})
                continue
            if claim.settled:
                facts = {"reason": "the same content was done before"}
                self._put_away(name, beside, claim.run, "done", facts)
                continue
            if claim.name != name and claim.digest not in taken.values():
                claim = self._taken_over(claim, name, beside)
            if claim.name == name and taken.setdefault(claim.run, claim.digest) == claim.digest:
                self._move((name, beside), "", claim.folder)
            else:
                self._tell(name, claim.run, "waits", "an earlier file of the run is worked on")

    def settle(self) -> None:
        """See that each file on its way has its flow run, and put it away when that has ended."""
        for claim in self._claims():
            state = self._flow_run(claim).state
            if state is None or not state.is_final():
                self._tell(claim.name, claim.run, state.name if state and state.name else "New", "")
            elif state.is_completed():
                summary = open_books(self._settings, claim.run).summary()
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
        open_books(self._settings, mine.run)  # refuses what no run can be named
        return mine if self._keep(mine, new=True) else self._standing(mine.key)

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
            return Options.model_validate(parse(self._store.get(beside).decode()))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise ConfigError(f"{beside}: {where}: {problem['msg']}") from error
        except ValueError as error:
            raise ConfigError(f"{beside}: {error}") from error

    def _claims(self) -> list[Claim]:
        """The claims on the files that are on their way."""
        found = list[Claim]()
        for digest in self._store.folders("working/"):
            try:
                found.append(self._standing(f"claimed/{digest}.json"))
            except KeyError:
                # somebody has tidied up; the files are there still
                for key in list(self._store.keys(f"working/{digest}/")):
                    self._store.move(key, key.rpartition("/")[2])
        return found

    def _standing(self, key: str) -> Claim:
        return Claim.model_validate_json(self._store.get(key))

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
        now = datetime.now(UTC)
        note = {"file": name, "run": run, "at": now.isoformat(timespec="seconds"), **facts}
        data = json.dumps(note, indent=1, ensure_ascii=False).encode()
        # an edited file comes again under the same name
        target = f"{place}/{now:%Y%m%dT%H%M%S}-"
        self._store.put(f"{target}{name}.summary.json", data, content_type=_JSON)
        self._move((name, beside), folder, target)
        self._tell(name, run, place, facts.get("reason", ""))

    def _move(self, names: Iterable[str], source: str, target: str) -> None:
        for name in filter(None, names):
            self._store.move(source + name, target + name)

    def _tell(self, name: str, run: str, state: str, reason: str) -> None:
        self.news.append({"file": name, "run": run, "state": state, "reason": reason})

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
