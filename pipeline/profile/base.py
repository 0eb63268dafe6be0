"""Types of values that sections share."""

from typing import Annotated, Literal

from pydantic import BaseModel, Discriminator, Field

from pipeline.job import PLAIN_NAME, FrozenModel, digest_of

Dtype = Literal["float32", "bfloat16", "float16"]
PlainName = Annotated[str, Field(min_length=1, pattern=PLAIN_NAME)]

VALUE, LIST, TABLE = "<value>", "<list>", "<table>"
"""Tags of a key that takes one of them, in an error's place; no key of a profile is so named."""


def _shape(value: object) -> str:
    if isinstance(value, dict | BaseModel):
        return TABLE
    return LIST if isinstance(value, list) else VALUE


BY_SHAPE = Discriminator(_shape)
"""Of a key's types, that of the value's shape: the others' errors would be misleading."""


class Section(FrozenModel):
    """A section that holds tables, and is hashable all the same: what it chooses is cached."""

    def __hash__(self) -> int:
        return hash(digest_of(self.model_dump(mode="json")))
