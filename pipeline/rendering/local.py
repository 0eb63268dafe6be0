"""The local renderer: the engine where it supports the model, else diffusers' own pipeline."""

from collections.abc import Sequence

import structlog

from pipeline.cancellation import result_of
from pipeline.errors import JobError, ModelError
from pipeline.job import ImageArray, RenderRequest
from pipeline.models import Models
from pipeline.ports import Pruner
from pipeline.profile import DiffusersProfile
from pipeline.rendering.conditions import reworded
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.engine import Engine
from pipeline.rendering.families import family_of
from pipeline.rendering.inputs import pasted
from pipeline.rendering.sample import SampleState
from pipeline.rendering.sampler import Unsupported
from pipeline.telemetry import charge, notice, rendered_by

log = structlog.get_logger(__name__)

EVERY_STEP = "renderer.predict_every is for the engine alone"


def local_renderer(
    models: Models, profile: DiffusersProfile
) -> "EngineRenderer | DiffusersRenderer":
    """The renderer of a profile: the engine, unless the model or its scheduler is unsupported."""
    reference = DiffusersRenderer(models, profile)
    try:
        return EngineRenderer(models, profile, reference)
    except Unsupported as why:
        if profile.predict_every > 1:
            reference.close()
            raise ModelError(f"{EVERY_STEP}: the engine lacks {why}") from why
        log.info("the reference renderer is used", model=profile.model, reason=str(why))
        reference.remarks = [*reference.remarks, _lacking(why)]
        return reference
    except BaseException:
        reference.close()
        raise


def _lacking(why: Unsupported) -> str:
    return f"diffusers' own pipeline renders this: the engine lacks {why}"


class EngineRenderer:
    """The Renderer port over the engine; requests that it does not support go to the `reference`.

    Raises Unsupported for a model that the engine cannot run at all.
    """

    def __init__(
        self, models: Models, profile: DiffusersProfile, reference: DiffusersRenderer
    ) -> None:
        family = family_of(models.diffusion(profile), models.preview_decoder(profile))
        self.engine = Engine(
            family,
            limit=profile.batch,
            device_lock=models.device_lock,
            guidance=reference.guidance,
            conditions=reference.conditions,
            read=reference.texts.prompts,
            fixed_sizes=profile.compile,
            predict_every=profile.predict_every,
        )
        self._reference, self._every = reference, profile.predict_every

    def render(
        self, request: RenderRequest, pruner: Pruner | None = None
    ) -> Sequence[ImageArray | None]:
        """One image per seed, in order, None where the pruner dropped it. Raises JobError, and the
        device's own error when the device is lost.
        """
        worded = reworded(self._reference.conditions, request)
        try:
            samples = [self.engine.begin(worded, seed) for seed in request.seeds]
        except Unsupported as why:
            if self._every > 1:
                raise JobError(f"{EVERY_STEP}: the engine lacks {why}") from why
            notice(_lacking(why))
            return self._reference.render(request, pruner)
        rendered_by("engine")
        self._reference.texts.report(worded, self._reference.guidance)
        for remark in self._reference.remarks:
            notice(remark)
        left, first = samples, samples[0].step
        try:
            for point in pruner.points if pruner else ():
                if pruner is None or len(left) == 1:
                    break
                until = first + round(point * (request.steps - first))
                previews = self._advance(left, max(first + 1, until))
                left = [left[index] for index in pruner.keep(previews)]
            ends = dict(zip(left, self._advance(left, request.steps), strict=True))
        finally:
            charge("renderer", sum(sample.seconds for sample in samples))
        return [ends.get(sample) for sample in samples]

    def close(self) -> None:
        """End the threads of the engine and of the reference."""
        self.engine.close()
        self._reference.close()

    def _advance(self, samples: Sequence[SampleState], step: int) -> list[ImageArray]:
        """The samples' images at a step, once all have reached it."""
        futures = [self.engine.submit(sample, step) for sample in samples]
        try:
            images = [result_of(future) for future in futures]
            return pasted(samples[0].request, images)
        finally:
            # after an error or a cancellation, the other samples are not needed
            for future in futures:
                future.cancel()
