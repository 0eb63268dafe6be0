"""Renders on this device: with the engine where it can, else with diffusers' own pipeline."""

from collections.abc import Sequence

import structlog

from pipeline.job import Order, Picture
from pipeline.metering import charge, rendered_by
from pipeline.models import Models
from pipeline.ports import Referee, Renderer
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.engine import Engine
from pipeline.rendering.families import family_of
from pipeline.rendering.lanes import Latent
from pipeline.rendering.trajectory import Unsupported
from pipeline.settings import RendererProfile
from pipeline.withdrawal import result_of

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

    def __init__(
        self, models: Models, profile: RendererProfile, reference: DiffusersRenderer
    ) -> None:
        family = family_of(models.diffusion(profile), models.preview_decoder(profile))
        self.engine = Engine(
            family,
            limit=profile.batch,
            turn=models.turn,
            guided_until=profile.guided_until,
            fixed_sizes=profile.compile,
        )
        self._reference, self._guided_until = reference, profile.guided_until

    def render(self, order: Order, referee: Referee | None = None) -> Sequence[Picture | None]:
        """One picture per seed, in order, None where the referee dropped it. Raises JobError; a
        lost device's own error is raised.
        """
        try:
            latents = [self.engine.begin(order, seed) for seed in order.seeds]
        except Unsupported:
            return self._reference.render(order)
        rendered_by("engine")
        self._reference.windows.tell(order, self._guided_until)
        try:
            left = self._race(latents, referee) if referee else latents
            ends = dict(zip(left, self._advance(left, order.steps), strict=True))
        finally:
            charge("renderer", sum(latent.seconds for latent in latents))
        return [ends.get(latent) for latent in latents]

    def _race(self, latents: Sequence[Latent], referee: Referee) -> Sequence[Latent]:
        """The candidates that the referee leaves at its last point."""
        for point in referee.points:
            if len(latents) == 1:
                break
            previews = self._advance(latents, round(point * latents[0].steps))
            latents = [latents[place] for place in referee.keep(previews)]
        return latents

    def _advance(self, latents: Sequence[Latent], step: int) -> list[Picture]:
        """The candidates' pictures at a step, once all have arrived there."""
        futures = [self.engine.submit(latent, max(1, step)) for latent in latents]
        try:
            return [result_of(future) for future in futures]
        finally:
            # after an error of one, or when nobody wants them, the others need not go on
            for future in futures:
                future.cancel()
