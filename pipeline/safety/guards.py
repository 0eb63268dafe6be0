"""The guards of a profile, in every place that one names.

They fail closed: a check that raises, that answers with no number or for fewer images than it was
shown blocks the job, as what it looks for does.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import isfinite
from threading import Lock
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from cachetools import LRUCache
from PIL import Image

from pipeline.cancellation import Cancelled
from pipeline.errors import Blocked, Refused, Rewritable, StoreError, Unavailable
from pipeline.job import Context, ImageArray, Job, Passage, Reference
from pipeline.media.image import to_array
from pipeline.media.image_store import INPUTS
from pipeline.telemetry import notice

KEPT = 10_000
"""Answers on stored images that are remembered."""

Source = TypeVar("Source", bound=Passage)


@dataclass(frozen=True)
class TextGuard:
    """A guard of texts; `found` says why it refuses a text, empty where it does not. `rule` is what
    a writer is told of it, its name where that is empty.
    """

    name: str
    action: Literal["drop", "block", "rewrite"]
    places: Collection[str]
    found: Callable[[str], str]
    rule: str = ""


class ImageCheck(Protocol):
    """The chance that an image shows what is refused."""

    def load(self) -> None:
        """Load what it needs ahead of its first use."""
        ...

    def chances(self, images: Sequence[ImageArray]) -> Sequence[float]:
        """One chance in 0..1 for each image, in order."""
        ...


@dataclass(frozen=True)
class ImageGuard:
    """A guard of images, which refuses those with a chance that is not below the threshold."""

    name: str
    action: Literal["drop", "block", "rewrite"]
    places: Collection[str]
    threshold: float
    check: ImageCheck


class Refusal(NamedTuple):
    """A guard's refusal of a text or an image, whether the job may go on without it, and the rule
    that another prompt has to keep, empty where none helps.
    """

    reason: str
    droppable: bool
    rule: str = ""


class Guards:
    """The Guard and SourceGuard ports over any number of guards. `stored` reads an image of the
    store by its key, and raises KeyError for one that is gone.
    """

    def __init__(
        self,
        texts: Sequence[TextGuard] = (),
        images: Sequence[ImageGuard] = (),
        stored: Callable[[str], ImageArray] | None = None,
    ) -> None:
        self._texts, self._images, self._stored = texts, images, stored
        self._known: LRUCache[tuple[str, str], float] = LRUCache(KEPT)
        self._lock = Lock()

    def load(self) -> None:
        """Load every model ahead of its first use."""
        for guard in self._images:
            guard.check.load()

    def close(self) -> None:
        """Close the connections of checks that have any; all of them, whichever cannot be closed.
        Raises what the first one raises.
        """
        with ExitStack() as closing:
            for guard in reversed(self._images):
                if close := getattr(guard.check, "close", None):
                    closing.callback(close)

    def check_text(self, text: str, place: str) -> None:
        """Raise Blocked for a text that a guard of this place refuses; Rewritable for a prompt that
        only guards which rewrite refuse.
        """
        rules = list[Refusal]()
        for refusal in self._of_text(text, place):
            if not (refusal.rule and place == "prompt"):
                raise Blocked(refusal.reason)
            rules.append(refusal)
        if rules:
            raise Rewritable(rules[0].reason, ", ".join(each.rule for each in rules))

    def check_inputs(self, job: Job) -> None:
        """Raise Blocked where a guard refuses an image that the row names."""
        for image in (job.image, job.control_image, *job.reference_images):
            if image:
                for refusal in self._of_stored(f"{INPUTS}{image.sha256}.png", "inputs"):
                    raise Blocked(f"{refusal.reason} ({image.path})")

    def screened(self, context: Context) -> Context:
        """The context without what guards refuse, of which the job's record gets a notice. Raises
        Blocked where the guard's action is `block`.
        """
        passages, references = self._allowed(context.passages), self._allowed(context.references)
        return context.model_copy(update={"passages": passages, "references": references})

    def refusals(self, images: Sequence[ImageArray]) -> Sequence[str]:
        """For each rendered image, in order, why it must not be kept; empty where it may be, and
        where it is not finite, which no store takes. Raises Blocked where the guard's action is
        `block`.
        """
        reasons = [""] * len(images)
        finite = {place: each for place, each in enumerate(images) if np.isfinite(each).all()}
        for guard in self._images if finite else ():
            if "output" in guard.places:
                refused = _refused(guard, list(finite.values()))
                for place, reason in zip(finite, refused, strict=True):
                    reasons[place] = reasons[place] or reason
        return reasons

    def check_source(self, text: str, image: Image.Image | None = None) -> None:
        """Raise Blocked for a source that must not enter the knowledge base."""
        self.check_text(text, "passages")
        for guard in self._images if image else ():
            if image and "references" in guard.places:
                (chance,) = _answers(guard, "references", [to_array(image.convert("RGB"))])
                if refusal := _refusal(guard, "references", chance):
                    raise Blocked(refusal.reason)

    def _allowed(self, sources: Sequence[Source]) -> tuple[Source, ...]:
        return tuple(source for source in sources if self._allows(source))

    def _allows(self, source: Passage) -> bool:
        for refusal in self._of_source(source):
            if not refusal.droppable:
                raise Blocked(f"{refusal.reason} (source {source.id})")
            notice(f"{refusal.reason}: source {source.id} is left out")
            return False
        return True

    def _of_source(self, source: Passage) -> Iterator[Refusal]:
        yield from self._of_text(f"{source.title}. {source.text}", "passages")
        if isinstance(source, Reference):
            yield from self._of_stored(source.image, "references")

    def _of_text(self, text: str, place: str) -> Iterator[Refusal]:
        for guard in self._texts:
            if place in guard.places:
                with _closed(guard.name, place):
                    found = guard.found(text)
                if found:
                    reason = f"guard {guard.name!r} at {place}: {found}"
                    rule = (guard.rule or guard.name) if guard.action == "rewrite" else ""
                    yield Refusal(reason, guard.action != "block", rule)

    def _of_stored(self, key: str, place: str) -> Iterator[Refusal]:
        for guard in self._images:
            if place not in guard.places:
                continue
            with self._lock:
                chance = self._known.get((guard.name, key))
            if chance is None:
                with _closed(guard.name, place):
                    if self._stored is None:
                        raise KeyError(key)
                    image = self._stored(key)
                (chance,) = _answers(guard, place, [image])
                with self._lock:
                    self._known[guard.name, key] = chance
            if refusal := _refusal(guard, place, chance):
                yield refusal


def _answers(guard: ImageGuard, place: str, images: Sequence[ImageArray]) -> list[float]:
    """The guard's chance for each image. Raises Blocked where it has none."""
    with _closed(guard.name, place):
        chances = [float(chance) for chance in guard.check.chances(images)]
        if len(chances) != len(images):
            raise ValueError(f"{len(chances)} answers for {len(images)} images")
        if not all(map(isfinite, chances)):
            raise ValueError("its answer is not a number")
    return chances


def _refused(guard: ImageGuard, images: Sequence[ImageArray]) -> Iterator[str]:
    """The guard's reason against each rendered image, empty without one. Raises Blocked where its
    action is `block`.
    """
    for chance in _answers(guard, "output", images):
        refusal = _refusal(guard, "output", chance)
        if refusal and not refusal.droppable:
            raise Blocked(refusal.reason)
        yield refusal.reason if refusal else ""


def _refusal(guard: ImageGuard, place: str, chance: float) -> Refusal | None:
    if chance < guard.threshold:
        return None
    reason = f"guard {guard.name!r} at {place}: chance {chance:.2f}, threshold {guard.threshold:g}"
    return Refusal(reason, guard.action != "block")


@contextmanager
def _closed(name: str, place: str) -> Iterator[None]:
    """Raise Blocked for every error of the block, but for those after which the job is done again:
    its cancellation, a store or a server that does not answer or refuses the whole run, a device
    that is lost or has no memory left.
    """
    try:
        yield
    except (Cancelled, StoreError, Unavailable, Refused):
        raise
    except Exception as error:
        from pipeline.models.faults import device_lost, out_of_memory  # late: torch

        if device_lost(error) or out_of_memory(error):
            raise
        kind = type(error).__name__
        raise Blocked(f"guard {name!r} at {place} could not decide: {kind}: {error}") from error
