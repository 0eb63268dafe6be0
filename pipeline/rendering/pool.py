"""The renderers of one process, of which each request chooses one by its model."""

from collections.abc import Callable, Sequence
from functools import cache

from pipeline.job import ImageArray, RenderRequest
from pipeline.ports import Pruner, Renderer
from pipeline.profile import Profile, RendererProfile


class ModelRenderer:
    """The Renderer port of a profile: each request goes to the renderer that its `model` names."""

    def __init__(self, profile: Profile, made: Callable[[RendererProfile], Renderer]) -> None:
        self._section = cache(lambda model: profile.of(model).renderer)
        self._made = made

    def render(
        self, request: RenderRequest, pruner: Pruner | None = None
    ) -> Sequence[ImageArray | None]:
        """The images of that renderer. Raises its errors, and ModelError."""
        return self._made(self._section(request.model)).render(request, pruner)
