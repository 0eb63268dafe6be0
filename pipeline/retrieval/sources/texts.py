"""The results of reading: texts and images to ingest, and errors."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pipeline.job import FrozenModel

LABEL = 500
"""Characters of a title, a source or a license."""
TAGS = 50


class Unreadable(ValueError):
    """A file or a row cannot be read; the message is the reason."""


class BadText(FrozenModel):
    """A text that could not be ingested, with the reason. `line` is 0 for a whole file."""

    file: str
    line: int
    reason: str


class Text(FrozenModel):
    """A passage, an image, or an image with its caption, before it is stored."""

    text: str = Field(default="", description="empty only where there is an image")
    title: str = Field(default="", max_length=LABEL)
    source: str = Field(default="", max_length=LABEL)
    license: str = Field(default="", max_length=LABEL)
    tags: tuple[str, ...] = Field(default=(), max_length=TAGS)
    image: Path | None = Field(
        default=None, description="absolute path of a file that nobody has opened yet"
    )

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not self.text and self.image is None:
            raise ValueError("neither a text nor an image")
        return self
