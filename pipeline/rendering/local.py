"""Renders on this device: with the engine where it can, else with diffusers' own pipeline."""

from collections.abc import Sequence

import structlog

from pipeline.job import Order, Picture
from pipeline.metering import charge
from pipeline.models import Models
from pipeline.ports import Renderer
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.engine import Engine
from pipeline.rendering.families import family_of
from pipeline.rendering.trajectory import Unsupported
from pipeline.settings import RendererProfile

log = structlog.get_logger(__name__)


def local_renderer(models: Models, profile: RendererProfile) -> Renderer:
    """The renderer for a model: the engine, unless its family or scheduler has no place in it."""
    reference = DiffusersRenderer(models, profile)
    try:
        return EngineRenderer(models, profile, reference)
    except Unsupported as why:
        log.info("the reference renderer is used", model=profile.model, reason=str(why))
        return reference


class EngineRenderer:
    """The Renderer port over the engine; orders that it cannot run go to the `reference`.

    Raises Unsupported for a model that it cannot run at all.
    """

    def __init__(self, models: Models, profile: RendererProfile, reference: Renderer) -> None:
        family = family_of(models.diffusion(profile))
        self._engine = Engine(family, limit=profile.batch, turn=models.turn)
        self._reference = reference

    def render(self, order: Order) -> Sequence[Picture]:
        """One picture per seed, in order. Raises JobError; a lost device's own error is raised."""
        try:
            latents = [self._engine.begin(order, seed) for seed in order.seeds]
        except Unsupported:
            return self._reference.render(order)
        futures = [self._engine.submit(latent, latent.steps) for latent in latents]
        try:
            return [future.result() for future in futures]
        finally:
            # after an error of one, the others need not go on
            for future in futures:
                future.cancel()
            charge("renderer", sum(latent.seconds for latent in latents))
