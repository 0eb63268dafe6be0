"""Builds a job from a row: reads values, fills in defaults, expands templates, gives it an id."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from pipeline.emphasis import sections_of
from pipeline.errors import ConfigError, JobError
from pipeline.job import (
    NAMED_WEIGHTS,
    BadRow,
    InputImage,
    Job,
    NamedWeights,
    digest_of,
    first_step,
    lies_between,
)
from pipeline.jobfile import identity
from pipeline.jobfile.remarks import Remarks
from pipeline.jobfile.rows import ROW_LIMIT, RawRow
from pipeline.jobfile.templates import expand, unsupported_syntax
from pipeline.jobfile.unused import ONE_ROUND, RETRIEVING, can_refine, unused
from pipeline.jobfile.values import READERS, readable, shown, text, without_marks
from pipeline.media.checks import says_something
from pipeline.media.inputs import InputReader
from pipeline.models.accepted import Accepted
from pipeline.models.named.folder import WeightsFolder
from pipeline.options import COLUMNS, INPUTS, message, settings_by
from pipeline.profile import Profile

_KEYWORDS_SHOWN = 120
_NO_ADAPTER = (
    "the profile's renderer has no image adapter ({}.image_adapter); with reference_scale 0 "
    "the images' texts alone are used"
)
_NO_FOLDER = "the profile's renderer names no folder of them ({}.{})"
_NOT_ALLOWED = "is none of the collections that jobs may ask, which retrieval.allowed names"
_NO_ENCODER = "the profile names no encoder of images (retrieval.image_encoder)"
_MARKS = "marks of direction, byte order marks or other tools' line breaks were taken out"
_NAN = "NaN was read as empty"
_NO_PRIOR = (
    "the contest stop needs the scores to expect ({}.prior): `pressrun calibrate stop JOBS` "
    "measures them and writes a profile with them"
)
_NO_DRAFTS = (
    "drafts of {} steps and {} survivors take {} steps, and the {} candidates without drafts "
    "{}: name fewer draft_steps or survivors, or more candidates"
)
_NO_SEED = "seed -1 was read as no seed: the row decides it"
_RENAMED = {column: name for column, (name, _, _) in COLUMNS.items() if column != name}
"""Columns whose field of a job has another name."""
_TEMPLATED = tuple(column for column, (_, _, mark) in COLUMNS.items() if mark.template)


class Overrides(settings_by("run")):  # type: ignore[misc]  # a computed base
    """A run's options in place of a profile's defaults; None keeps the default.

    A row's own value takes precedence over both. Without `retrieval` no row retrieves anything.
    """

    retrieval: bool = Field(default=True, description="without it nothing is retrieved")


class _Refused(Exception):
    """A row cannot become a job; `column` is at fault."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column, self.reason = column, reason


class _Under(NamedTuple):
    """The settings of the rows of one renderer, which is a `section` of the profile."""

    section: str
    profile: Profile
    defaults: dict[str, Any]
    ids: identity.JobIds
    weights: Mapping[str, WeightsFolder]
    accepted: Accepted | None

    def check_adapter(self, column: str, source: Literal["named", "retrieved"]) -> None:
        """Raise _Refused where the column's images steer no image adapter."""
        renderer = self.profile.renderer
        adapters = renderer.image_adapters.values() if renderer.kind == "diffusers" else ()
        if not adapters:
            raise _Refused(column, _NO_ADAPTER.format(self.section))
        if not any(adapter.takes(source) for adapter in adapters):
            raise _Refused(column, f"no {self.section}.image_adapter takes {source} images")


class JobBuilder:
    """Builds jobs under one profile and one set of overrides. `weights` are the folders of
    what rows may name, by the names of the profile's renderers and by column, `accepted` the
    settings that those renderers' pipelines accept.

    Raises ConfigError for overrides that name no renderer of the profile.
    """

    def __init__(
        self,
        profile: Profile,
        overrides: Overrides,
        remarks: Remarks | None = None,
        weights: Mapping[str, Mapping[str, WeightsFolder]] | None = None,
        inputs: InputReader | None = None,
        accepted: Mapping[str, Accepted] | None = None,
    ) -> None:
        self._accepted = accepted or {}
        self._whole, self._retrieval, self._weights = profile, overrides.retrieval, weights or {}
        self._inputs = inputs or InputReader(())
        self._encodes = bool(getattr(profile.retrieval, "image_encoder", ""))
        self._note = (remarks or Remarks()).add
        self._said = overrides.model_dump(exclude={"retrieval"}, exclude_none=True)
        self._model = self._said.get("model", profile.defaults.model)
        self._forced = (
            {} if overrides.retrieval else {"passages": 0, "references": 0, "collection": ""}
        )
        self._under = cache(self._make_under)
        self._under(self._model)

    def _make_under(self, model: str) -> _Under:
        own = self._whole.of(model)
        defaults = {k: v for k, v in own.defaults if v is not None} | self._said
        ids = identity.JobIds(own, defaults)
        section = f"renderers.{model}" if model else "renderer"
        if defaults["contest"] == "stop" and defaults.get("prior") is None:
            raise ConfigError(f"defaults.contest: {_NO_PRIOR.format(_defaults_of(model))}")
        return _Under(
            section,
            own,
            defaults | {"model": model},
            ids,
            self._weights.get(model, {}),
            self._accepted.get(model),
        )

    def build(self, row: RawRow) -> Job | BadRow:
        """The row's job, or a bad row with the first reason. Never raises."""
        try:
            return self._job(row)
        except _Refused as refused:
            values = {
                column: str(value).encode("utf-8", errors="backslashreplace").decode()
                for column, value in row.values.items()
            }
            return BadRow(
                id=digest_of([row.line, values]),
                row=row.line,
                column=readable(refused.column, 80),
                reason=refused.reason,
                keywords=readable(str(row.values.get("keywords", "")), _KEYWORDS_SHOWN),
            )

    def _job(self, row: RawRow) -> Job:
        if row.problem:
            raise _Refused(row.column, row.problem)
        given, meta = self._read(row)
        if not given.get("keywords"):
            raise _Refused("keywords", "keywords is empty")
        for column in _TEMPLATED:
            for reason in unsupported_syntax(given.get(column, "")):
                self._note(row.line, column, reason)
        under = self._under_of(given.get("model") or self._model)
        images = self._images(given)
        # the content alone: equal images make equal work, whatever their names
        contents = {
            name: [image.sha256 for image in found] if isinstance(found, tuple) else found.sha256
            for name, found in images.items()
        }
        digest = identity.row_digest(given | contents | {"meta": meta})
        fields = under.defaults | given | _expanded(given, meta, digest) | self._forced
        for column in _RENAMED.keys() & given.keys():
            fields[_RENAMED[column]] = fields.pop(column)
        fields |= {"meta": meta, "row": row.line}
        fields.setdefault("seed", int(digest[:8], 16))
        for column in NAMED_WEIGHTS:
            if fields[column]:
                fields[column] = _with_digests(column, fields[column], under)
        fields |= images | {"id": under.ids.of(fields | contents)}
        try:
            job = Job.model_validate(fields)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = str(problem["loc"][0])
            column = next((c for c, name in _RENAMED.items() if name == field), field)
            raise _Refused(column, _explained(problem)) from error
        self._check(job, given, under)
        if not self._retrieval:
            given = {name: value for name, value in given.items() if name not in RETRIEVING}
        for column, reason in unused(job, given, under.profile):
            self._note(row.line, column, reason)
        return job

    def _check(self, job: Job, given: Mapping[str, Any], under: _Under) -> None:
        """Raise _Refused for a job that asks for what its profile does not have."""
        if job.references and job.reference_scale:
            under.check_adapter("references", "retrieved")
        if job.reference_images and job.reference_scale:
            under.check_adapter("reference_images", "named")
            if not self._encodes:
                raise _Refused("reference_images", _NO_ENCODER)
        if job.collection and not self._whole.retrieval.allows(job.collection):
            raise _Refused("collection", f"{shown(job.collection)} {_NOT_ALLOWED}")
        if given.get("rounds", 1) > 1 and not can_refine(job, self._whole):
            raise _Refused("rounds", ONE_ROUND)
        if job.contest == "stop" and job.prior is None:
            raise _Refused("contest", _NO_PRIOR.format(_defaults_of(job.model)))
        edits = given.get("edit_strength")
        for each in (job, _draft(job)) if job.contest == "draft" else (job,):
            if edits and first_step(each.steps, edits) == each.steps:
                raise _Refused("edit_strength", f"{edits} of {each.steps} steps is no step")
            _check_inputs(each)
            _check_control(each, under)
        _check_weights(job, under.profile)
        if under.accepted:
            _check_accepted(job, under.accepted)

    def _under_of(self, model: str) -> _Under:
        try:
            return self._under(model)
        except ConfigError as error:
            raise _Refused("model", error.detail) from error

    def _images(self, given: Mapping[str, Any]) -> dict[str, InputImage | tuple[InputImage, ...]]:
        """The images that a row names, by column."""
        images = dict[str, InputImage | tuple[InputImage, ...]]()
        for column in INPUTS:
            match given.get(column):
                case str(name):
                    images[column] = self._input(column, name)
                case tuple(names):
                    images[column] = tuple(self._input(column, name) for name in names)
        return images

    def _input(self, column: str, name: str) -> InputImage:
        try:
            return self._inputs.read(name)
        except JobError as error:
            raise _Refused(column, f"{shown(name)}: {error.detail}") from error

    def _read(self, row: RawRow) -> tuple[dict[str, Any], dict[str, str]]:
        """A row's own values, each in its type, and its meta columns."""
        given, meta = dict[str, Any](), dict[str, str]()
        for column, value in row.values.items():
            if isinstance(value, str):
                if not value.isprintable() and value != (value := without_marks(value)):
                    self._note(row.line, column, _MARKS)
                if not value.strip():
                    continue
            elif value != value:
                self._note(row.line, column, _NAN)
                continue
            try:
                if column in READERS:
                    given[column] = READERS[column](value)
                else:
                    meta[column.removeprefix("meta.")] = text(value, ROW_LIMIT)
            except ValueError as error:
                raise _Refused(column, str(error)) from error
        if given.get("seed") == -1:
            del given["seed"]
            self._note(row.line, "seed", _NO_SEED)
        if sum(map(len, meta.values())) > ROW_LIMIT:
            raise _Refused("meta", f"the row is longer than {ROW_LIMIT // 1024} KB")
        return given, meta


def _defaults_of(model: str) -> str:
    """The profile's table of defaults for the rows of a model."""
    return f"renderers.{model}.defaults" if model else "defaults"


def _with_digests(
    column: str, given: Sequence[str | NamedWeights], under: _Under
) -> list[dict[str, Any]]:
    """The named weights with the digests of their files, which are part of the job's identity."""
    try:
        named = [NAMED_WEIGHTS[column].model_validate(each) for each in given]
        if under.profile.renderer.kind == "diffusers":
            if (folder := under.weights.get(column)) is None:
                raise _Refused(column, _NO_FOLDER.format(under.section, column))
            named = [
                each.model_copy(update={"digest": folder.find(each.name).digest}) for each in named
            ]
    except ValidationError as error:
        raise _Refused(column, _explained(error.errors(include_url=False)[0])) from error
    except JobError as error:
        raise _Refused(column, error.detail) from error
    return [each.model_dump() for each in named]


def _expanded(given: Mapping[str, Any], meta: Mapping[str, str], digest: str) -> dict[str, str]:
    expanded = dict[str, str]()
    for column in _TEMPLATED:
        if column in given:
            try:
                whole = expand(given[column], meta, f"{digest}/{column}")
                expanded[column] = whole if whole is given[column] else text(whole)
            except ValueError as error:
                raise _Refused(column, str(error)) from error
    if not expanded["keywords"]:
        raise _Refused("keywords", "keywords is empty after its choices")
    if not says_something(expanded["keywords"]):
        raise _Refused("keywords", "keywords hold no word, no number and no emoji")
    return expanded


def _draft(job: Job) -> Job:
    """The job with the steps of its drafts. Raises _Refused where these save no steps."""
    plain = job.model_copy(update={"contest": "best_of"}).contest_steps
    if job.contest_steps >= plain:
        asked = (job.draft_steps, job.survivors, job.contest_steps, job.candidates, plain)
        raise _Refused("draft_steps", _NO_DRAFTS.format(*asked))
    return job.model_copy(update={"steps": job.draft_steps})


def _check_inputs(job: Job) -> None:
    """Raise _Refused for images of a row that do not go together, or with its other columns."""
    image, mask = job.image, job.mask
    if job.first_step == job.steps:
        raise _Refused("strength", f"{job.strength} of {job.steps} steps is no step")
    if mask and not image:
        raise _Refused("mask", "a mask needs an image")
    if mask and image and abs(mask.width * image.height / (mask.height * image.width) - 1) > 0.02:
        raise _Refused(
            "mask",
            f"the mask has {mask.width}x{mask.height} pixels and the image {image.width}x"
            f"{image.height}: one is not the other's size, nor of its proportions",
        )


def _check_accepted(job: Job, accepted: Accepted) -> None:
    """Raise _Refused for a setting that the renderer's pipeline does not take."""
    model = f"the model's {accepted.name}"
    if not accepted.plain and not job.mask:
        raise _Refused("mask", f"{model} paints masked images alone: a row needs image and mask")
    if job.guidance > 1 and not accepted.guidance:
        raise _Refused("guidance", f"{model} takes no guidance; let it be 0 or 1")
    if job.guidance > 1 and job.negative and not accepted.negative:
        raise _Refused("negative", f"{model} takes no negative prompt; leave it empty")


def _check_control(job: Job, under: _Under) -> None:
    """Raise _Refused for a ControlNet that the profile does not name, for one without an image, an
    image without one, and where no step lies between its fractions.
    """
    controls = under.profile.renderer.controls
    offer = f"({under.section}.controls has: {', '.join(controls) or 'none'})"
    if not job.control:
        if job.control_image:
            raise _Refused("control_image", f"control has to name a ControlNet too {offer}")
        return
    if job.control not in controls:
        raise _Refused("control", f"the profile has no ControlNet {shown(job.control)} {offer}")
    if not job.control_image:
        raise _Refused("control", "it needs an image to read, in the column control_image")
    part = job.control_from, job.control_until
    taken = range(job.first_step, job.steps)
    if not any(lies_between(step, job.steps, *part) for step in taken):
        reason = "none of {} steps lies between control_from {:g} and control_until {:g}"
        raise _Refused("control_until", reason.format(len(taken), *part))


def _check_weights(job: Job, profile: Profile) -> None:
    """Raise _Refused for a weight that is too large in a text that the renderer gets."""
    renderer = profile.renderer
    if renderer.kind != "diffusers" or not renderer.weighted:
        return
    # a language model's prompt is without brackets
    columns = _TEMPLATED if profile.writer.kind == "template" else ("negative",)
    for column in columns:
        try:
            sections_of(getattr(job, column))
        except JobError as error:
            raise _Refused(column, error.detail) from error


def _explained(problem: Mapping[str, Any]) -> str:
    value = problem["input"]
    if problem["type"] == "multiple_of" and value > 8:
        lower = int(value) // 8 * 8
        return f"{shown(value)} should be a multiple of 8: {lower} or {lower + 8}"
    return f"{shown(value)} {message(problem).removeprefix('Input ')}"
