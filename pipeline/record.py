"""The documents of a run in the store: its specification, and one outcome for each row."""

from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib import metadata
from typing import Any, Literal

from pydantic import Field

from pipeline.job import (
    Brief,
    Context,
    Digest,
    FrozenModel,
    Id,
    InputImage,
    Job,
    Passage,
    Reference,
    Score,
    TokenCount,
    digest_of,
)

RECORD_SCHEMA = 3


class Status(StrEnum):
    """The end of a row."""

    ACCEPTED = "accepted"
    BELOW_GATE = "below_gate"
    INVALID = "invalid"
    BLOCKED = "blocked"
    FAILED = "failed"


KEPT = frozenset({Status.ACCEPTED, Status.BELOW_GATE})
"""The statuses of jobs that keep an image."""


class RunSpec(FrozenModel):
    """The specification of a run; stored as `run.json` before its first job starts."""

    run: str
    job_file: str = Field(description="the file's name, without its folders")
    job_folder: str = Field(default="", description="digest of the file's folder on its machine")
    job_file_digest: str
    rows: int = Field(description="0 until the job file is read to its end")
    shards: int = Field(description="number of shard files; 0 likewise")
    shard_size: int = Field(default=0, description="rows in each shard but the last")
    profile: dict[str, Any] = Field(description="the whole profile; profile.Profile reads it")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="what the command line said in place of the defaults"
    )
    models: dict[str, str] = Field(description="role to digest")
    weights: str = Field(
        default="", description="state of the folders of LoRAs and the like that rows may name"
    )
    inputs: str = Field(default="", description="state of the files of images that rows name")
    created_at: str
    version: str

    @property
    def fingerprint(self) -> str:
        """Digest of the job file, the settings and the models: equal for equal work."""
        parts = {"job_file_digest", "profile", "overrides", "models"}
        parts |= {name for name in ("weights", "inputs") if getattr(self, name)}
        return digest_of(self.model_dump(include=parts))


class Refinement(FrozenModel):
    """A further round of a job in which no candidate passed.

    `rewritten`: with another prompt, because of checks that no candidate passed.
    `edited`: from the best candidate on.
    `steered`: with images retrieved for phrases that the best candidate did not show.

    Prompt and retrieved images hold for the candidates from `first` on, the start `image` for those
    of this round.
    """

    kind: Literal["rewritten", "edited", "steered"]
    missing: tuple[str, ...] = Field(
        description="questions of those checks, or parts of the judged text, asked for in turn"
    )
    brief: Brief | None = Field(
        default=None,
        description="with the other prompt, or of the edited candidate; null where none was edited",
    )
    image: InputImage | None = Field(
        default=None, description="the candidate that is edited, as it is stored"
    )
    references: tuple[Reference, ...] = Field(
        default=(), description="new ones; empty: without another prompt no more was rendered"
    )
    first: int = Field(ge=1, description="index of its first candidate")


class RefusedBrief(FrozenModel):
    """The first brief of a job, refused by a guard that rewrites, and the reason."""

    brief: Brief
    reason: str


class CandidateRecord(FrozenModel):
    """A candidate without its image, as the record keeps it."""

    index: int
    seed: int
    score: Score | None = Field(description="null where it was dropped on the way")
    previews: tuple[Score, ...] = Field(
        default=(),
        description="of its unfinished image, at each rung that it reached with rivals, or of its "
        "draft",
    )


class ImageRecord(FrozenModel):
    """The kept image: its path in the run's folder, its digests and its size in pixels."""

    path: str = Field(pattern=r"^images/[0-9A-Za-z_]{1,64}-[0-9a-f]{12}\.(png|webp|jpg)$")
    sha256: Digest
    width: int
    height: int
    perceptual_hash: str = Field(
        default="",
        pattern=r"^([0-9a-f]{40})?$",
        description="near that of an image that looks alike",
    )


class Outcome(FrozenModel):
    """The record of one job: how it ended, and enough to render the image again.

    Stored as `records/<job_id>.json`; the fields are described in docs/record.md.
    """

    record_schema: int = Field(default=RECORD_SCHEMA, ge=RECORD_SCHEMA, le=RECORD_SCHEMA)
    run: str
    job_id: Id
    status: Status
    reason: str = ""
    job: Job | None = Field(default=None, description="none where the row was invalid")
    row: int
    keywords: str
    context: Context = Context()
    brief: Brief | None = None
    refused: RefusedBrief | None = Field(
        default=None,
        description="the first brief, where a guard that rewrites refused it",
    )
    refinements: tuple[Refinement, ...] = Field(
        default=(), description="the rounds after the first one"
    )
    candidates: tuple[CandidateRecord, ...] = ()
    winner: int | None = Field(default=None, description="index of the kept candidate")
    given_up: float | None = Field(
        default=None,
        description="chance of the next candidate with which a contest of `stop` was given up",
    )
    image: ImageRecord | None = None
    models: dict[str, str] = Field(default_factory=dict, description="role to digest")
    renderer: str = Field(default="", description="engine, diffusers (the reference) or a1111")
    tokens: tuple[TokenCount, ...] = Field(
        default=(), description="of prompt and negative prompt, by text encoder"
    )
    seconds: dict[str, float] = Field(default_factory=dict, description="wall time by stage")
    device_seconds: dict[str, float] = Field(
        default_factory=dict, description="this job's share of each batched model call, by role"
    )
    attempt: str = Field(default="", description="id of the execution that made this record")
    epoch: int = Field(default=0, description="fencing epoch of its lease; rises with each lease")
    created_at: str = ""
    version: str = ""
    notices: tuple[str, ...] = Field(
        default=(), description="what was cut on the way, and which settings had no effect"
    )

    @property
    def device_time(self) -> float:
        """Device seconds of all roles together."""
        return sum(self.device_seconds.values())

    @property
    def winners_job(self) -> Job | None:
        """The job with the image that the winner was begun from."""
        last = self._winners_rounds[-1:]
        if self.job and last and last[0].image:
            return self.job.editing(last[0].image)
        return self.job

    @property
    def winners_context(self) -> Context:
        """The context that the winner was rendered with."""
        return self.context.joined(
            tuple(each for refinement in self._winners_rounds for each in refinement.references)
        )

    @property
    def winners_brief(self) -> Brief | None:
        """The brief with the prompt that the winner was rendered with."""
        briefs = [each.brief for each in self._winners_rounds if each.brief]
        return briefs[-1] if briefs else self.brief

    @property
    def _winners_rounds(self) -> list[Refinement]:
        """The refinements up to the winner's own."""
        return [
            each
            for each in self.refinements
            if self.winner is not None and self.winner >= each.first
        ]

    def uses(self, source: Passage) -> bool:
        """True for a source whose text the writer was given, or whose image entered the render."""
        rendered = isinstance(source, Reference) and source.scale > 0 and bool(self.candidates)
        return rendered or (
            self.winners_brief is not None and source.id in self.winners_brief.sources
        )

    @property
    def score(self) -> float | None:
        """The winner's calibrated score."""
        kept = self._kept()
        return kept.score.calibrated if kept and kept.score else None

    @property
    def seed(self) -> int | None:
        """The winner's own seed."""
        kept = self._kept()
        return kept.seed if kept else None

    def _kept(self) -> CandidateRecord | None:
        return next((c for c in self.candidates if c.index == self.winner), None)


class Progress(FrozenModel):
    """A snapshot of a run's progress by the process that works on it; times are in seconds."""

    phase: str
    rows: int = Field(default=0, description="rows read from the job file so far")
    done: int = Field(description="rows that have their outcome")
    jobs_per_minute: float
    left: float | None = Field(description="time; null while nobody can tell")
    paused: str = Field(default="", description="why no job is begun")


def timestamp() -> str:
    """The current time in UTC, ISO 8601 in milliseconds, as in records and specs."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@cache
def version() -> str:
    """Pressrun's version; cached, because looking it up parses the distribution's metadata."""
    return metadata.version("pressrun")
