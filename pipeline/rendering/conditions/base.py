"""The seam of what enters a model's calls beside its texts, such as images and LoRAs."""

from collections.abc import Generator, Hashable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from pipeline.job import RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile
from pipeline.rendering.families import Conditioning


class Condition:
    """A condition on the calls of a profile's pipeline; a subclass overrides what it needs."""

    def __init__(self, pipe: Any, models: Models, profile: DiffusersProfile) -> None:
        pass

    def reworded(self, request: RenderRequest) -> RenderRequest:
        """The request with its texts as the pipeline's tokenizers are to read them. Called once,
        before all else, by the job's thread, without the device lock. Raises JobError.
        """
        return request

    def check(self, request: RenderRequest) -> None:
        """Raise JobError for a request that cannot be rendered so, before its first step. Called by
        the job's thread, without the device lock.
        """

    def text_key(self, request: RenderRequest) -> Hashable:
        """A key that is equal for requests whose equal texts are encoded alike."""

    def conditioning(self, request: RenderRequest, *, unconditional: bool) -> Conditioning:
        """Additions to the conditioning of each of the request's texts, or of its negative one."""
        return {}

    def applied(
        self, requests: Sequence[RenderRequest], steps: Sequence[int]
    ) -> AbstractContextManager[object]:
        """The context of a call of the pipeline's models for a batch: the requests of its rows, in
        order, once or several times over, and how many steps each row has behind it. These may
        rise within the context; there are none where texts are encoded. The caller holds the
        device lock.
        """
        return nullcontext()


def reworded(conditions: Sequence[Condition], request: RenderRequest) -> RenderRequest:
    """The request as all conditions word it."""
    for condition in conditions:
        request = condition.reworded(request)
    return request


@contextmanager
def applied(
    conditions: Sequence[Condition], requests: Sequence[RenderRequest], steps: Sequence[int] = ()
) -> Generator[None]:
    """The context of a call under all conditions."""
    with ExitStack() as stack:
        for condition in conditions:
            stack.enter_context(condition.applied(requests, steps))
        yield
