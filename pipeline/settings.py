"""Settings: where services, stores and models are, read once from the environment.

They may differ from machine to machine; everything that decides a result is in the profile.
"""

import os
import re
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
from pipeline.profile import Profile, first_problem

SECRETS = Path("/run/secrets")
"""The folder of container secrets: one file for each variable, named in lower case."""


def _example() -> Path:
    """The folder of the shapes example: `shapes` beside this module in an installed wheel,
    `examples/shapes` in a clone.
    """
    installed = Path(__file__).with_name("shapes")
    return installed if installed.is_dir() else Path(__file__).parents[1] / "examples" / "shapes"


EXAMPLE = _example()
SHIPPED_MODELS = EXAMPLE / "models"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _usual_name(name: object) -> object:
    """The name in lower case, with `jpg` as `jpeg`."""
    lower = name.lower() if isinstance(name, str) else name
    return "jpeg" if lower == "jpg" else lower


def _below_home(place: str) -> str:
    """The path with `~` expanded; unchanged where the home directory is unknown."""
    return os.path.expanduser(place)  # noqa: PTH111 - pathlib's raises where there is no home


class Settings(BaseSettings):
    """Addresses, folders and limits; each is an environment variable PRESSRUN_<NAME>."""

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
    judge_url: str = Field(
        default="http://127.0.0.1:8000/v1", description="OpenAI-compatible endpoint that sees"
    )
    judge_api_key: SecretStr = SecretStr("")
    guard_url: str = Field(
        default="http://127.0.0.1:8000/v1", description="OpenAI-compatible endpoint of moderations"
    )
    guard_api_key: SecretStr = SecretStr("")
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
    renderer_memory_mb: int = Field(
        default=0,
        ge=0,
        description="of the renderers that a worker holds; 0: 8192, on CUDA what is free",
    )
    worker_memory_mb: int = Field(default=0, ge=0, description="a larger one leaves; 0: no bound")
    window: int = Field(
        default=0, ge=0, description="jobs in the queue at a time; 0: as many as the workers need"
    )
    worker_wait_seconds: float = Field(
        default=60, ge=0, description="a run that no worker answers for so long ends"
    )
    shard: int = Field(default=250, ge=1, description="jobs in one shard, one Prefect task run")
    inputs: str = Field(
        default="",
        description="folders and s3://bucket/prefix, with commas, that rows may name images in; "
        "empty: the job file's own folder",
    )
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
        if (info.field_name or "").endswith("_api_key") and not value.isascii():
            raise ValueError("it holds a character outside ASCII, which no header carries")
        return value

    @field_validator(
        "redis_url", "broker_url", "qdrant_url", "s3_endpoint_url", "writer_url", "judge_url",
        "guard_url", "a1111_url",
    )  # fmt: skip
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

    @property
    def digests(self) -> Path:
        """The file that remembers the digests of model files."""
        return self.home / "digests.json"

    @cached_property
    def chosen_profile(self) -> Profile:
        """The profile that `profile` names. Raises ConfigError."""
        return Profile.load(self.profile)

    def secrets(self) -> Iterator[str]:
        """The secrets among the values, passwords in URLs included."""
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
    """Read the settings from `overrides` that are not None, else from the environment, else from
    files in `SECRETS`. From now on messages and logs mask their secrets.

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
        problem = first_problem(error).replace(name, f"PRESSRUN_{name.upper()}" if name else "", 1)
        raise ConfigError(problem) from error
    except OSError as error:
        raise ConfigError(f"A secret cannot be read: {error}") from error
    masking.remember(settings.secrets())
    return settings


def secret_file(variable: str) -> str:
    """The secret in the file named like another program's variable; empty without a file.

    Raises ConfigError where the file cannot be read.
    """
    file = SECRETS / variable.lower()
    try:
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{variable}: {file} cannot be read: {error}") from error


def _is_address(value: str) -> bool:
    """True for a URL with a host and no invalid port. An "@" after the host is taken for the end
    of a password that was not percent-encoded.
    """
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    rest = f"{parts.path}{parts.query}{parts.fragment}"
    return "unix" in parts.scheme or (bool(parts.hostname) and "@" not in rest)
