"""Profiles: everything besides the row itself that decides a result, read from TOML.

A profile travels in the run's spec and is part of every job's identity.
"""

import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal, NamedTuple, Self, Union, get_args

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from pipeline.errors import ConfigError, RunError
from pipeline.job import FrozenModel
from pipeline.options import message
from pipeline.profile.base import LIST, TABLE, VALUE, PlainName
from pipeline.profile.guards import ConceptGuardProfile, GuardProfile
from pipeline.profile.renderers import RENDERER, A1111Profile, NamedRenderer, RendererProfile
from pipeline.profile.sections import (
    AskingJudgeProfile,
    ClipJudgeProfile,
    JobDefaults,
    JudgeProfile,
    PanelProfile,
    QdrantProfile,
    RetrievalProfile,
    TemplateWriterProfile,
    WriterProfile,
)
from pipeline.record import RunSpec

PROFILES = Path(__file__).parent / "shipped"


class Plug(NamedTuple):
    """A kind of a port's implementation, as `module:name` of two things that are imported when a
    profile chooses it: the class of its section, and what makes the implementation of one. A judge
    is made of the process's models, or of its settings where a server judges.
    """

    profile: str
    made_by: str
    made_of: Literal["models", "settings"] = "models"


_JUDGING = "pipeline.judging"
JUDGES: dict[str, Plug] = {
    "clip": Plug("pipeline.profile:ClipJudgeProfile", "pipeline.judging.clip:ClipJudge"),
    "questions": Plug(
        "pipeline.profile:QuestionsJudgeProfile", "pipeline.judging.questions:QuestionsJudge"
    ),
    "questions_endpoint": Plug(
        f"{_JUDGING}.questions_endpoint:QuestionsEndpointJudgeProfile",
        f"{_JUDGING}.questions_endpoint:QuestionsEndpointJudge",
        made_of="settings",
    ),
    "reference": Plug(
        f"{_JUDGING}.reference:ReferenceJudgeProfile", f"{_JUDGING}.reference:ReferenceJudge"
    ),
    "aesthetic": Plug(
        f"{_JUDGING}.aesthetic:AestheticJudgeProfile", f"{_JUDGING}.aesthetic:AestheticJudge"
    ),
    "caption": Plug(
        f"{_JUDGING}.caption:CaptionJudgeProfile", "pipeline.assemble.knowledge:caption_judge"
    ),
    "text": Plug(f"{_JUDGING}.text:TextJudgeProfile", f"{_JUDGING}.text:TextJudge"),
}
"""By kind; each is made of the process's `Models` or `Settings`, and its table. The first is the
default.
"""

RETRIEVERS: dict[str, Plug] = {
    "qdrant": Plug(
        "pipeline.profile:QdrantProfile", "pipeline.assemble.knowledge:qdrant_retriever"
    ),
}
"""By kind; each is made of the process's `Models`, a function that opens the knowledge base, and
its section. The first is the default.
"""

PLUGS = {"judge": JUDGES, "retrieval": RETRIEVERS}


def _of_its_kind(section: str, value: Any) -> Any:
    """A table of a section as the class of its kind."""
    if not isinstance(value, dict):
        return value
    kinds = Profile.kinds(section)
    table = {"kind": next(iter(kinds))} | value
    union: Any = Union[tuple(kinds.values())]  # noqa: UP007 - of one or more
    if len(kinds) > 1:
        union = Annotated[union, Field(discriminator="kind")]
    return TypeAdapter(union).validate_python(table)


def _is_list(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, dict):
        name = info.field_name
        raise ValueError(f"{name}s are a list: write [[{name}]] above each")  # noqa: TRY004 - pydantic's
    return value


class Profile(FrozenModel):
    """Everything besides the row itself that decides a result.

    A section with a `kind` has the keys of that kind and no others. `renderers` are those that
    rows choose by their column `model`; without one they are rendered by `renderer`.
    """

    name: str
    retrieval: Annotated[
        SerializeAsAny[RetrievalProfile], BeforeValidator(partial(_of_its_kind, "retrieval"))
    ] = QdrantProfile()
    writer: WriterProfile
    renderer: RendererProfile
    renderers: dict[PlainName, Annotated[NamedRenderer, Field(discriminator="kind")]] = Field(
        default={}
    )
    judge: Annotated[
        tuple[
            Annotated[
                SerializeAsAny[JudgeProfile], BeforeValidator(partial(_of_its_kind, "judge"))
            ],
            ...,
        ],
        BeforeValidator(_is_list),
    ] = Field(min_length=1)
    panel: PanelProfile = PanelProfile()
    guard: Annotated[
        tuple[Annotated[GuardProfile, Field(discriminator="kind")], ...], BeforeValidator(_is_list)
    ] = ()
    defaults: JobDefaults

    @model_validator(mode="after")
    def _has_default(self) -> Self:
        try:
            self.of(self.defaults.model)
        except ConfigError as error:
            raise ValueError(f"defaults.model: {error.detail}") from error
        return self

    @model_validator(mode="after")
    def _every_server_has_its_checkpoint(self) -> Self:
        named = [self.renderer, *self.renderers.values()]
        served = [each for each in named if isinstance(each, A1111Profile)]
        if len(served) > 1 and not all(each.model for each in served):
            # a checkpoint that a row asks for stays loaded for the rows after it
            raise ValueError("of several renderers of kind 'a1111' each has to name its model")
        return self

    @model_validator(mode="after")
    def _every_judge_has_its_name(self) -> Self:
        names = [each.name for each in self.judge]
        if len({*names}) < len(names):
            raise ValueError(f"two judges have one name ({', '.join(names)}): set judge.name")
        if all(each.weight == 0 for each in self.judge):
            raise ValueError("a judge's weight has to be above 0")
        if all(each.finalists or each.weight == 0 for each in self.judge):
            raise ValueError(
                "one judge with a weight above 0 has to see all images: leave out its finalists"
            )
        for each in self.judge:
            each.beside(self.retrieval)
        return self

    @model_validator(mode="after")
    def _checks_are_asked(self) -> Self:
        writer = self.writer
        key = "questions" if isinstance(writer, TemplateWriterProfile) else "checks"
        asked = any(isinstance(each, AskingJudgeProfile) for each in self.judge)
        if getattr(writer, key) and not asked:
            raise ValueError(f"writer.{key} has no effect: no judge asks questions")
        return self

    @model_validator(mode="after")
    def _guards_are_told_apart_and_have_their_model(self) -> Self:
        names = [each.name for each in self.guard]
        if len({*names}) < len(names):
            raise ValueError(f"two guards have one name ({', '.join(names)}): set guard.name")
        for each in self.guard:
            if isinstance(each, ConceptGuardProfile) and not (each.model or self.clip):
                raise ValueError(f"guard {each.name!r}: set its model, no judge is a CLIP")
            if each.action == "rewrite" and "prompt" not in each.in_places:
                raise ValueError(
                    f"guard {each.name!r}: it rewrites prompts, and has no place `prompt`"
                )
        return self

    @property
    def clip(self) -> ClipJudgeProfile | None:
        """The first judge that is a CLIP."""
        found = (each for each in self.judge if isinstance(each, ClipJudgeProfile))
        return next(found, None)

    def of(self, model: str) -> Self:
        """The profile as it is for jobs of a `model`: its renderer and defaults are that one's, and
        there are no others. Raises ConfigError for an unknown name.
        """
        renderer, defaults = self.renderer, self.defaults
        if model:
            if (named := self.renderers.get(model)) is None:
                names = ", ".join(self.renderers) or "none"
                raise ConfigError(f"the profile has no renderer {model!r} (there are: {names})")
            renderer = RENDERER.validate_python(named.model_dump(exclude={"defaults"}))
            own = {key: value for key, value in named.defaults if value is not None}
            defaults = defaults.model_copy(update=own)
        return self.model_copy(update={"renderer": renderer, "renderers": {}, "defaults": defaults})

    @classmethod
    def load(cls, name: str) -> Self:
        """Read a shipped profile by name, or any TOML file by path.

        `extends = "NAME"` begins from another profile. Raises ConfigError.
        """
        try:
            return cls.model_validate(_read_profile(name) | {"name": Path(name).stem})
        except ValidationError as error:
            raise ConfigError(f"profile {name!r}: {_problem(error)}") from error

    @classmethod
    def kinds(cls, section: str) -> dict[str, type[FrozenModel]]:
        """The models of a section, or of each of the `renderers` or guards, by kind; by the empty
        name where it has no kinds.
        """
        if section in PLUGS:
            return {kind: resolve_name(plug.profile) for kind, plug in PLUGS[section].items()}
        lists: dict[str, Any] = {"renderers": NamedRenderer, "guard": GuardProfile}
        annotation = lists.get(section, cls.model_fields[section].annotation)
        models = get_args(annotation) or (annotation,)
        return {
            each.model_fields["kind"].default if "kind" in each.model_fields else "": each
            for each in models
            if isinstance(each, type) and issubclass(each, FrozenModel)
        }


def profile_of(spec: RunSpec) -> Profile:
    """The profile of a run. Raises RunError for one of another version of Pressrun."""
    try:
        return Profile.model_validate(spec.profile)
    except ValidationError as error:
        raise RunError(
            f"The profile of run {spec.run} is of another version of Pressrun"
            f" ({_problem(error)}). Go on with version {spec.version}, or submit the job file"
            " again: what is done under other settings is done anew."
        ) from error


def _read_profile(name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.toml")))
        raise ConfigError(f"no profile {name!r}; there are {known}, or give a .toml file's path")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"profile {path}: {error}") from error
    base = tables.pop("extends", None)
    return _extended(_read_profile(base), tables) if base else tables


def _extended(base: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    """The tables over those of another profile. A section of another kind keeps of the base's keys
    those that its kind knows, a renderer of another scheduler none of its settings, and each judge
    in a list begins from the base's judge of its name.
    """
    kept = dict(base)
    for section in base.keys() & tables.keys() & Profile.model_fields.keys():
        old, new = base[section], tables[section]
        if section == "renderers" and isinstance(old, dict) and isinstance(new, dict):
            kept[section] = {n: _known(section, each, new.get(n)) for n, each in old.items()}
        elif section == "judge":
            tables = tables | {section: _judges(old, new)}
        elif section == "guard" and isinstance(old, list) and isinstance(new, list):
            tables = tables | {section: _guards(old, new)}
        else:
            kept[section] = _known(section, old, new)
    return _merge(kept, tables)


def _judges(base: Any, over: Any) -> Any:
    if not isinstance(base, list) or not isinstance(over, list):
        return over
    known = {_judge_name(each): each for each in base}
    begun = [_known("judge", known.get(_judge_name(each), {}), each) for each in over]
    return [
        _merge(old, new) if isinstance(old, dict) and isinstance(new, dict) else new
        for old, new in zip(begun, over, strict=True)
    ]


def _judge_name(table: Any) -> str:
    default = next(iter(JUDGES))
    return str(table.get("name") or table.get("kind", default)) if isinstance(table, dict) else ""


def _guards(base: Any, over: Any) -> Any:
    """A list of guards behind those of the base with other names: none is lost by a new one."""
    if not all(isinstance(each, dict) for side in (base, over) for each in side):
        return over
    names = [each.get("name", each.get("kind")) for each in over]
    return [each for each in base if each.get("name", each.get("kind")) not in names] + over


def _known(section: str, old: Any, new: Any) -> Any:
    """A section's keys without those that mean nothing beside the ones of the other table."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return old
    kind = Profile.kinds(section).get(str(new["kind"])) if "kind" in new else None
    kept = {k: v for k, v in old.items() if kind is None or k in kind.model_fields}
    if "scheduler" in new and new["scheduler"] != old.get("scheduler"):
        kept.pop("scheduler_settings", None)
    return kept


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _problem(error: ValidationError) -> str:
    """The first of a profile's errors in one line, after the dotted name of its key."""
    problem = error.errors()[0]
    place = _keys(problem["loc"])
    kinds = Profile.kinds(place[0]) if place and place[0] in Profile.model_fields else {}
    depth = 2 if place[:1] in (["renderers"], ["judge"], ["guard"]) else 1
    section, place = ".".join(place[:depth]), place[depth:]
    if problem["type"] == "union_tag_not_found":
        return f"{section}.kind: Field required"
    if problem["type"] == "union_tag_invalid":
        return f"{section}.kind: Input should be {' or '.join(map(repr, kinds))}"
    if len(kinds) < 2 or len(place) < 2:
        return first_problem(error)
    kind, *place = place  # pydantic names it before the key
    key = ".".join((section, *place))
    knowing = [repr(name) for name, model in kinds.items() if place[0] in model.model_fields]
    if problem["type"] == "extra_forbidden" and len(place) == 1 and knowing:
        verb = "has" if len(knowing) == 1 else "have"
        return f"{key}: the kind {kind!r} has no such key; {' and '.join(knowing)} {verb}"
    return f"{key}: {message(problem)}"


def first_problem(error: ValidationError) -> str:
    """The first of a validation's errors in one line, after the dotted name of its field."""
    problem = error.errors()[0]
    where, what = ".".join(_keys(problem["loc"])), message(problem)
    return f"{where}: {what}" if where else what


def _keys(place: Sequence[int | str]) -> list[str]:
    """The keys of an error's place, without the tags of their shapes."""
    return [str(part) for part in place if part not in (VALUE, LIST, TABLE)]
