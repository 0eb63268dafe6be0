"""Loading and unloading of the renderers in the pool."""

from pipeline.models import Models
from pipeline.profile import A1111Profile, DiffusersProfile, RendererProfile
from pipeline.rendering.pool import LoadedRenderer
from pipeline.settings import Settings


class RendererLoader:
    """The pool's `Loader`, of every kind of renderer."""

    def __init__(self, settings: Settings, models: Models) -> None:
        self._settings, self._models = settings, models

    def load(self, section: RendererProfile) -> LoadedRenderer:
        match section:
            case DiffusersProfile():
                from pipeline.rendering.local import local_renderer

                return local_renderer(self._models, section)
            case A1111Profile():
                from pipeline.rendering.a1111 import A1111Renderer

                settings = self._settings
                return A1111Renderer(
                    settings.a1111_url, settings.a1111_auth.get_secret_value(), section
                )

    def unload(self, section: RendererProfile) -> None:
        if isinstance(section, DiffusersProfile):
            self._models.forget(section)

    def nbytes(self, section: RendererProfile) -> int:
        return self._models.nbytes(section) if isinstance(section, DiffusersProfile) else 0

    def room(self, held: int) -> float:
        return self._models.room(held)

    def out_of_memory(self, error: Exception) -> bool:
        from pipeline.models.faults import out_of_memory

        return any(out_of_memory(each) for each in (error, error.__cause__) if each)
