"""Types of values that sections share."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.job import PLAIN_NAME, FrozenModel, digest_of

Dtype = Literal["float32", "bfloat16", "float16"]
PlainName = Annotated[str, Field(min_length=1, pattern=PLAIN_NAME)]


class Section(FrozenModel):
    """A section that holds tables, and is hashable all the same: what it chooses is cached."""

    def __hash__(self) -> int:
        return hash(digest_of(self.model_dump(mode="json")))
