"""The renderers of one process: each loaded when a request first needs it, and evicted when another
one needs its memory.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import structlog

from pipeline import telemetry
from pipeline.errors import ModelError, OutOfMemory
from pipeline.job import ImageArray, RenderRequest
from pipeline.ports import Pruner, Renderer
from pipeline.profile import Profile, RendererProfile

log = structlog.get_logger(__name__)


class LoadedRenderer(Renderer, Protocol):
    """A renderer with a model and threads of its own."""

    def close(self) -> None:
        """End its threads; no call runs, and none follows."""
        ...


class Loader(Protocol):
    """Loads renderers, and knows the memory for them."""

    def load(self, section: RendererProfile) -> LoadedRenderer:
        """A new renderer of a section. Raises ModelError, or the device's own error."""
        ...

    def unload(self, section: RendererProfile) -> None:
        """Free the memory of a section's model, whose renderer is closed or was never made."""
        ...

    def nbytes(self, section: RendererProfile) -> int:
        """Size of a section's weights on the device; 0 if they are elsewhere. Raises ModelError."""
        ...

    def room(self, held: int) -> float:
        """Bytes for one more renderer beside loaded ones of `held` bytes."""
        ...

    def out_of_memory(self, error: Exception) -> bool:
        """True for an error of `load` after which there may be room once another one is gone."""
        ...


@dataclass(eq=False)
class Held:
    """A loaded renderer, its bytes, and the number of calls that use it. A leaving one takes no
    further call.
    """

    renderer: LoadedRenderer
    nbytes: int
    users: int = 0
    leaving: bool = False


class RendererPool:
    """The loaded renderers by their sections. Where one more does not fit, the one that was used
    least recently leaves, an idle one first. Thread-safe; one thread loads or evicts at a time.
    `evictions` counts those that left.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._held: dict[RendererProfile, Held] = {}  # least recently used first
        self._changed = threading.Condition()
        self._loading = False
        self._last: RendererProfile | None = None
        self.evictions = 0

    @contextmanager
    def lent(self, section: RendererProfile) -> Iterator[LoadedRenderer]:
        """A section's renderer, which stays loaded while the block runs. A block must not ask for
        another one. Raises ModelError.
        """
        with self._used(section) as held:
            with self._changed:
                if self._last not in (None, section):
                    telemetry.renderer("changed")
                self._last = section
            yield held.renderer

    def load(self, section: RendererProfile) -> None:
        """Load a section's renderer ahead of its first call. Raises ModelError."""
        with self._used(section):
            pass

    def close(self) -> None:
        """End the loaded renderers; no call runs, and none follows."""
        with ExitStack() as ending, self._changed:
            for held in self._held.values():
                ending.callback(held.renderer.close)
            self._held.clear()

    def evict_others(self, section: RendererProfile) -> None:
        """Evict all but a section's renderer, once their calls have ended; the caller uses none."""
        with self._changed:
            self._changed.wait_for(lambda: not self._loading)
            self._loading = True
        try:
            while self._evict(section):
                pass
        finally:
            with self._changed:
                self._loading = False
                self._changed.notify_all()

    @contextmanager
    def _used(self, section: RendererProfile) -> Iterator[Held]:
        held = self._take(section) or self._loaded(section)
        try:
            yield held
        finally:
            with self._changed:
                held.users -= 1
                self._changed.notify_all()

    def _take(self, section: RendererProfile) -> Held | None:
        """The renderer for one more call; None where the caller is to load it."""
        with self._changed:
            while (held := self._held.get(section)) is None or held.leaving:
                if not self._loading:
                    self._loading = True
                    return None
                self._changed.wait()
            self._use(section, held)
            return held

    def _use(self, section: RendererProfile, held: Held) -> None:
        self._held[section] = self._held.pop(section, held)
        held.users += 1

    def _loaded(self, section: RendererProfile) -> Held:
        """Load a renderer for the caller's call."""
        held = None
        try:
            held = self._load(section)
        finally:
            with self._changed:
                self._loading = False
                if held:
                    self._use(section, held)
                self._changed.notify_all()
        return held

    def _load(self, section: RendererProfile) -> Held:
        nbytes = self._loader.nbytes(section)
        while nbytes > self._loader.room(self._nbytes()):
            if not self._evict():
                break  # the size is an estimate: the device decides
        left = True
        while True:
            try:
                renderer = self._loader.load(section)
            except Exception as error:
                if not self._loader.out_of_memory(error):
                    raise
                reason = str(error)
            else:
                telemetry.renderer("loaded")
                return Held(renderer, nbytes)
            # outside the except block, which holds the tensors
            self._loader.unload(section)
            if not left:
                raise ModelError(f"{section.model!r} does not fit the device's memory: {reason}")
            # after the last one, too: the threads of its calls may still have held it
            left = self._evict()

    def _nbytes(self) -> int:
        with self._changed:
            return sum(held.nbytes for held in self._held.values())

    def _evict(self, kept: RendererProfile | None = None) -> bool:
        """Evict a renderer that takes memory, once its calls have ended; False if none but `kept`
        is left.
        """
        with self._changed:
            sections = [
                section for section, held in self._held.items() if held.nbytes and section != kept
            ]
            if not sections:
                return False
            section = min(sections, key=lambda each: self._held[each].users > 0)
            self._held[section].leaving = True
            self._changed.wait_for(lambda: not self._held[section].users)
            renderer = self._held.pop(section).renderer
        renderer.close()
        del renderer  # it holds the model
        self._loader.unload(section)
        self.evictions += 1
        telemetry.renderer("evicted")
        log.info("a renderer leaves the memory", model=section.model)
        return True


class ModelRenderer:
    """The Renderer port of a profile: each request goes to the renderer that its `model` names."""

    def __init__(self, profile: Profile, pool: RendererPool) -> None:
        self._section, self._pool = cache(lambda model: profile.of(model).renderer), pool

    def render(
        self, request: RenderRequest, pruner: Pruner | None = None
    ) -> Sequence[ImageArray | None]:
        """The images of that renderer, which gets the memory of the others where it needs that.
        Raises its errors, and ModelError.
        """
        section, evictions = self._section(request.model), self._pool.evictions
        answers = list[Sequence[int]]()
        try:
            with self._pool.lent(section) as renderer:
                return renderer.render(request, pruner and Repeated(pruner, answers))
        except OutOfMemory:
            self._pool.evict_others(section)
            if self._pool.evictions == evictions:
                raise
        with self._pool.lent(section) as renderer:
            return renderer.render(request, pruner and Repeated(pruner, answers))


class Repeated:
    """A pruner of images that may be rendered again: it begins with the `answers` of the time
    before, to which it adds its own.
    """

    def __init__(self, pruner: Pruner, answers: list[Sequence[int]]) -> None:
        self.points, self._keep = pruner.points, pruner.keep
        self._answers, self._given = answers, iter(tuple(answers))

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        """The answer of the time before; the pruner's own where there was none."""
        if (answer := next(self._given, None)) is None:
            answer = self._keep(previews)
            self._answers.append(answer)
        return answer
