"""One Settings, read once from the environment; one Profile, read from TOML.

Settings say where things are and may differ from machine to machine. A profile says what decides
the result, travels in the run's spec, and is part of every job's identity.
"""

import os
import re
import tomllib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline import masking
from pipeline.errors import ConfigError
from pipeline.job import SEED_SPACE, ContestMode, FrozenModel, Rung, TextMode, digest_of

PROFILES = Path(__file__).parent / "profiles"
SECRETS = Path("/run/secrets")
"""Where container engines put secrets; a file is named as its variable, in lower case."""
SHIPPED_MODELS = Path(__file__).parents[1] / "examples" / "shapes" / "models"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Dtype = Literal["float32", "bfloat16", "float16"]
Tool = Literal["langchain", "llamaindex", "haystack"]


class CollectionProfile(FrozenModel):
    """A collection that another tool wrote, and how it is searched."""

    written_by: Tool
    embedding: str = Field(
        default="", description="what made its vectors, as in `retrieval`; empty: the profile's"
    )
    vector: str = Field(default="", description="name of the dense vector; empty: the tool's own")


class RetrievalProfile(FrozenModel):
    """How texts and images are found."""

    embedding: str = Field(
        default="hashed", description="dense embedding: `hashed` (no model) or a model reference"
    )
    dense: float = Field(
        default=0.6, ge=0, le=1, description="the share of dense vectors; the rest is BM25's"
    )
    floor: float = Field(default=0.0, ge=0, le=1, description="passages below are dropped")
    image_encoder: str = Field(
        default="", description="model reference of the OpenCLIP that embeds images; empty: none"
    )
    image_norm: float = Field(
        default=0.0, ge=0, description="length that embeddings of images are given; 0: their own"
    )
    alike: float = Field(
        default=0.9, gt=0, le=1, description="sources that are more alike are taken once"
    )
    allowed: tuple[str, ...] = Field(
        default=(), description="the collections that jobs may ask; empty: any"
    )
    collections: dict[str, CollectionProfile] = Field(
        default={}, description="those that other tools wrote, by name"
    )

    def allows(self, collection: str) -> bool:
        """Whether jobs may ask it."""
        return not self.allowed or collection in self.allowed

    def __hash__(self) -> int:
        # a dict has none, and retrievers are cached by their profile
        return hash(digest_of(self.model_dump(mode="json")))


class WriterProfile(FrozenModel):
    """Who writes the text and the prompt."""

    kind: Literal["local", "endpoint", "template"]
    model: str = Field(default="", description="model reference, or the endpoint's model name")
    dtype: Dtype = "float32"
    batch: int = Field(default=16, ge=1, description="jobs in one call")
    max_tokens: int = Field(default=256, ge=8)
    temperature: float = Field(default=0.0, ge=0, le=2)
    timeout: float = Field(default=60.0, gt=0, description="seconds for one endpoint call")
    text_template: str = "{keywords}. {passages}"
    prompt_template: str = "{keywords} {style}"


class RendererProfile(FrozenModel):
    """Who renders, and how."""

    kind: Literal["diffusers", "a1111"]
    model: str = Field(default="", description="model reference; for a1111 a checkpoint's name")
    unet: str = Field(default="", description="model reference of a UNet to use instead")
    previews: str = Field(
        default="", description="model reference of a small decoder (TAESD) for previews, if any"
    )
    image_adapter: str = Field(
        default="", description="model reference of an IP-Adapter: a folder with one file"
    )
    variant: str = Field(default="", description="file variant of the weights, such as fp16")
    scheduler: str = Field(
        default="", description="a diffusers scheduler class; empty: the model's"
    )
    dtype: Dtype = "float32"
    batch: int = Field(default=8, ge=1, description="images in one batch")
    channels_last: bool = Field(
        default=False, description="memory layout that GPUs convolve faster"
    )
    compile: bool = Field(default=False, description="the denoiser's repeated blocks")
    guided_until: float = Field(
        default=1.0, ge=0, le=1, description="the part of the steps that is guided, from the first"
    )
    timeout: float = Field(default=300.0, gt=0, description="seconds for one endpoint call")


class JudgeProfile(FrozenModel):
    """Who judges, against what, and how a cosine becomes a chance."""

    model: str = Field(description="model reference: an OpenCLIP folder or hub id")
    against: Literal["prompt", "text", "keywords"] = "prompt"
    dtype: Dtype = "float32"
    batch: int = Field(default=32, ge=1, description="images in one call")
    slope: float | None = Field(default=None, description="None: the model's calibration.json")
    offset: float | None = None


class GuardProfile(FrozenModel):
    """What must not be made."""

    blocked_terms: tuple[str, ...] = ()


class JobDefaults(FrozenModel):
    """What a row gets where it says nothing."""

    candidates: int = 4
    threshold: float = 0.5
    width: int
    height: int
    steps: int
    guidance: float
    seed: int | None = Field(default=None, ge=0, lt=SEED_SPACE, description="None: from the row")
    collection: str = ""
    negative: str = Field(default="", max_length=2048, description="as long as a row's own may be")
    passages: int = 4
    references: int = 0
    reference_scale: float = 0.6
    mode: TextMode = "generated"
    contest: ContestMode = "best_of"
    wave: int = 2
    rounds: int = 1
    rungs: tuple[Rung, ...] = (
        Rung(at=0.4, keep=0.5),
        Rung(at=0.6, keep=0.5),
        Rung(at=0.8, keep=0.5),
    )


class Profile(FrozenModel):
    """Everything that decides a result besides the row itself."""

    name: str
    retrieval: RetrievalProfile = RetrievalProfile()
    writer: WriterProfile
    renderer: RendererProfile
    judge: JudgeProfile
    guard: GuardProfile = GuardProfile()
    defaults: JobDefaults

    @classmethod
    def load(cls, name: str) -> Self:
        """Read a shipped profile by name, or any TOML file by path.

        `extends = "NAME"` begins from another profile. Raises ConfigError.
        """
        try:
            return cls.model_validate(_read_profile(name) | {"name": Path(name).stem})
        except ValidationError as error:
            raise ConfigError(f"profile {name!r}: {_first_problem(error)}") from error


def _usual_name(name: object) -> object:
    """In lower case, and with the name that we have for it."""
    lower = name.lower() if isinstance(name, str) else name
    return "jpeg" if lower == "jpg" else lower


def _below_home(place: str) -> str:
    """The place with `~` as the home; as it is written where nobody knows of one."""
    return os.path.expanduser(place)  # noqa: PTH111 - pathlib's raises where there is no home


class Settings(BaseSettings):
    """Where things are. Each is an environment variable PRESSRUN_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix="PRESSRUN_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    profile: str = Field(default="shapes", description="a shipped profile, or a TOML file's path")
    home: Path = Field(default=Path(".pressrun"), description="state of the embedded services")
    store: str = Field(default="out", description="a folder, or s3://bucket/prefix")
    models: Path = Field(default=SHIPPED_MODELS, description="folder that model references are in")
    redis_url: str = Field(default="", description="empty: a private Redis is started")
    broker_url: str = Field(default="", description="RabbitMQ, amqp://; empty: Redis is the broker")
    qdrant_url: str = Field(default="", description="empty: Qdrant's local mode in home/knowledge")
    qdrant_api_key: SecretStr = SecretStr("")
    writer_url: str = Field(
        default="http://127.0.0.1:1234/v1", description="OpenAI-compatible endpoint"
    )
    writer_api_key: SecretStr = SecretStr("")
    a1111_url: str = Field(default="http://127.0.0.1:7860", description="A1111-compatible server")
    a1111_auth: SecretStr = Field(default=SecretStr(""), description="user:password, where asked")
    s3_endpoint_url: str = Field(default="", description="empty: AWS itself")
    s3_region: str = "us-east-1"
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="auto: path with an endpoint of its own, else as AWS wants"
    )
    s3_sse: Literal["", "AES256", "aws:kms"] = Field(default="", description="encryption at rest")
    s3_kms_key: str = Field(default="", description="for aws:kms; empty: the account's own key")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    concurrency: int = Field(default=16, ge=1, description="jobs in flight in one worker")
    hang_seconds: float = Field(default=300, gt=0, description="a worker without a step is killed")
    grace_seconds: float = Field(default=30, ge=0, description="a stopping worker may finish jobs")
    worker_memory_mb: int = Field(default=0, ge=0, description="a larger one leaves; 0: no bound")
    window: int = Field(
        default=0, ge=0, description="jobs in the queue at a time; 0: as many as the workers need"
    )
    worker_wait_seconds: float = Field(
        default=60, ge=0, description="a run that no worker answers for so long ends"
    )
    shard: int = Field(default=250, ge=1, description="jobs in one shard, one Prefect task run")
    inbox: str = Field(
        default="", description="a folder, or s3://bucket/prefix, whose job files become runs"
    )
    inbox_profiles: str = Field(
        default="",
        description="profiles that a file there may name beside the shipped ones, with commas",
    )
    webhook: SecretStr = Field(
        default=SecretStr(""), description="address that is told how each run ended"
    )
    webhook_secret: SecretStr = Field(default=SecretStr(""), description="signs what it is told")
    image_format: Annotated[Literal["png", "webp", "jpeg"], BeforeValidator(_usual_name)] = "png"
    gpu_hour_price: float = Field(default=0, ge=0, description="of a device; 0: no money is shown")
    currency: str = Field(default="USD", description="that the price is in")
    metrics_port: Annotated[int, BeforeValidator(lambda port: port or 0)] = Field(
        default=0, ge=0, le=65535, description="where Prometheus finds figures; 0: nowhere"
    )
    metrics_host: str = Field(default="127.0.0.1", description="the address to listen on")
    log_format: Literal["", "json", "console"] = Field(
        default="", description="empty: console on a terminal, else json"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(_usual_name)
    ] = "info"
    traces: float = Field(default=0, ge=0, le=1, description="part of the jobs that is traced")

    @field_validator("*", mode="before")
    @classmethod
    def _one_line(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if not isinstance(value, str):
            return value
        value = value.strip()  # a secret's file, or `echo key | base64`, ends in a line break
        if _CONTROL.search(value):
            raise ValueError("it holds a line break or another control character")
        if info.field_name in ("qdrant_api_key", "writer_api_key") and not value.isascii():
            raise ValueError("it holds a character outside ASCII, which no header carries")
        return value

    @field_validator(
        "redis_url", "broker_url", "qdrant_url", "s3_endpoint_url", "writer_url", "a1111_url"
    )
    @classmethod
    def _an_address(cls, value: str) -> str:
        if "://" in value and not _is_address(value):
            raise ValueError(
                "it is no address such as scheme://user:password@host:port; in a password / is "
                "%2F, # is %23, ? is %3F and @ is %40"
            )
        return value

    @field_validator("store", "inbox")
    @classmethod
    def _is_a_place(cls, place: str) -> str:
        if place.lower().startswith("s3:") and not place.startswith("s3://"):
            raise ValueError(f"write s3://bucket/prefix, not {place!r}")
        return _below_home(place)

    @field_validator("home", "models")
    @classmethod
    def _from_home(cls, path: Path) -> Path:
        return Path(_below_home(str(path)))

    @model_validator(mode="after")
    def _known_store(self) -> Self:
        if "://" in self.store and not self.store.startswith("s3://"):
            raise ValueError(f"store must be a folder or s3://bucket/prefix, not {self.store!r}")
        return self

    @model_validator(mode="after")
    def _known_inbox(self) -> Self:
        if "://" in self.inbox and not self.inbox.startswith("s3://"):
            raise ValueError(f"inbox must be a folder or s3://bucket/prefix, not {self.inbox!r}")
        return self

    @model_validator(mode="after")
    def _webhook_is_an_address(self) -> Self:
        address = self.webhook.get_secret_value()
        if address and not address.startswith(("https://", "http://")):
            raise ValueError("webhook must begin with https:// or http://")
        return self

    @model_validator(mode="after")
    def _key_is_used(self) -> Self:
        if self.s3_kms_key and self.s3_sse != "aws:kms":
            raise ValueError("s3_kms_key is for s3_sse = aws:kms alone")
        return self

    @cached_property
    def chosen_profile(self) -> Profile:
        """The profile that `profile` names."""
        return Profile.load(self.profile)

    def secrets(self) -> Iterator[str]:
        """Everything in them that nobody may read."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                yield from masking.secrets_of(value.get_secret_value())
            elif isinstance(value, str):
                yield from masking.secrets_of_url(value)

    def __repr__(self) -> str:
        return masking.mask(super().__repr__())

    __str__ = __repr__


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment and, where it is silent, from files in `SECRETS`; with what is
    not None in `overrides` on top. No message or log has their secrets from now on.

    Raises ConfigError with the setting's name.
    """
    secrets = SECRETS if SECRETS.is_dir() else None
    masking.remember(masking.secrets_in(os.environ))
    try:
        settings = Settings(
            _secrets_dir=secrets, **{k: v for k, v in overrides.items() if v is not None}
        )
    except ValidationError as error:
        name = ".".join(map(str, error.errors()[0]["loc"]))
        problem = _first_problem(error).replace(name, f"PRESSRUN_{name.upper()}" if name else "", 1)
        raise ConfigError(problem) from error
    except OSError as error:
        raise ConfigError(f"A secret cannot be read: {error}") from error
    masking.remember(settings.secrets())
    return settings


def secret_file(variable: str) -> str:
    """The secret in the file that is named as a variable of another program's; empty without one.

    Raises ConfigError where there is one that cannot be read.
    """
    file = SECRETS / variable.lower()
    try:
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{variable}: {file} cannot be read: {error}") from error


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
    return _merge(_read_profile(base), tables) if base else tables


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _is_address(value: str) -> bool:
    """Whether a URL has a host and, where one is given, a port; an "@" outside its user's part is
    the end of a password that was not encoded.
    """
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    rest = f"{parts.path}{parts.query}{parts.fragment}"
    return "unix" in parts.scheme or (bool(parts.hostname) and "@" not in rest)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where, what = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
