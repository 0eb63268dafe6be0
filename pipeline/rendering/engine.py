"""The engine: step-level continuous batching of samples from many jobs.

One thread owns the model. Each iteration takes the samples of one batch group (equal
`SampleState.batch_key`), runs one denoising step for all of them, each at its own timestep,
decodes those that have reached their task's step, and fills their places from the queue. An image
does not depend on what shared its batch: noise comes from the sample's own seed, and each row of a
step uses its own coefficients.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from time import perf_counter
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor

from pipeline import telemetry
from pipeline.errors import JobError, OutOfMemory
from pipeline.job import MASKED, ImageArray, RenderRequest
from pipeline.models.faults import device_lost, free_memory, out_of_memory
from pipeline.rendering.batch_groups import BatchGroup, StepTask, choose, sizes
from pipeline.rendering.conditions import Condition, applied
from pipeline.rendering.families import Conditioning, Family
from pipeline.rendering.families.base import draw
from pipeline.rendering.guidance import ALL_STEPS, Branch, Guidance
from pipeline.rendering.inputs import mask_of
from pipeline.rendering.prompts import Prompt, as_it_stands
from pipeline.rendering.sample import Kept, SampleState
from pipeline.rendering.sampler import MIXED, NUMBERS
from pipeline.watchdog import beat, suspended

TEXTS_KEPT, IMAGES_KEPT = 512 << 20, 128 << 20
"""Bytes of encoded texts and images: a long text of a large model takes 16 MB."""
SAMPLER_TABLES_KEPT = 64
SAMPLE_PARTS = "x0", "before", "base", "spare"
"""Tensors of a sample that a Mix weighs beside the latents and their new estimate, in its order."""
IDLE_GROUPS_KEPT = 16
"""A group remembers the batch size that fits the device, and whether a compiled model met it."""


@dataclass
class EngineStats:
    """Counts of the engine's work.

    `rows`: model input rows, one for each branch. `places`, `used`: batch places offered
    and used.
    """

    steps: int = 0
    rows: int = 0
    used: int = 0
    places: int = 0

    @property
    def occupancy(self) -> float:
        """Mean fraction of the batch in use."""
        return self.used / self.places if self.places else 0.0


class Engine:
    """Renders samples of one model, batched.

    `limit` is the number of places in a batch; it is halved for a group whose batch does not fit
    the device's memory. With `fixed_sizes`, for a compiled model, batches are padded to one of a
    few sizes, all of which the model has met before the first step, and images are decoded one by
    one. `read` makes prompts of the texts of a sample. The model predicts in one of `predict_every`
    steps. `device_lock` is held during each iteration.
    """

    def __init__(
        self,
        family: Family,
        *,
        limit: int,
        device_lock: AbstractContextManager[object],
        guidance: Guidance = ALL_STEPS,
        conditions: Sequence[Condition] = (),
        read: Callable[[Sequence[str]], list[Prompt]] = as_it_stands,
        fixed_sizes: bool = False,
        predict_every: int = 1,
    ) -> None:
        self._family, self._limit, self._device_lock = family, limit, device_lock
        self._guidance, self._conditions, self._read = guidance, conditions, read
        self._fixed_sizes, self._every = fixed_sizes, predict_every
        self._groups: dict[Hashable, BatchGroup] = {}
        self._texts: LRUCache[Hashable, Conditioning] = LRUCache(
            TEXTS_KEPT,
            getsizeof=lambda text: min(sum(each.nbytes for each in text.values()), TEXTS_KEPT),
        )
        self._images: LRUCache[Hashable, Tensor] = LRUCache(
            IMAGES_KEPT, getsizeof=lambda image: min(image.nbytes, IMAGES_KEPT)
        )
        self._sampler_table = lru_cache(SAMPLER_TABLES_KEPT)(family.sampler_table)
        self._changed = threading.Condition()
        self._closed = False
        self.stats = EngineStats()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def begin(self, request: RenderRequest, seed: int) -> SampleState:
        """A new sample. Raises JobError or Unsupported for a request that cannot be run."""
        self._family.check(request)
        for condition in self._conditions:
            condition.check(request)
        branches = self._guidance.branches(
            request.prompt,
            request.negative,
            request.guidance,
            request.steps,
            guided=self._family.guides(request),
        )
        table = self._sampler_table(
            request.steps, request.width, request.height, request.first_step
        )
        if self._every > 1 and (table.has_noise or len(table) < len(table.rows)):
            raise JobError(
                "renderer.predict_every needs a scheduler that calls the model once in a step, and "
                "adds no noise"
            )
        prompts = self._read([branch.text for branch in branches])
        return SampleState(request, seed, table, branches, prompts, self._every)

    def submit(self, sample: SampleState, until: int) -> "Future[ImageArray]":
        """Queue a sample until a step; the future is its image there, at the last step the finished
        one, before that a preview. Cancelling the future takes the sample out of the batch.

        The future raises JobError, or the error of a lost device.
        """
        task = StepTask(sample, until)
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            key = sample.batch_key
            # least recently used first
            group = self._groups.pop(key) if key in self._groups else BatchGroup(self._limit)
            self._groups[key] = group
            group.add(task)
            self._changed.notify()
        return task.future

    def close(self) -> None:
        """End the thread and cancel all tasks."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        for group in self._groups.values():
            for task in [*group.active, *group.waiting]:
                task.future.cancel()

    @torch.inference_mode()
    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or any(group.filling for group in self._groups.values())
                )
                group = None if self._closed else choose(self._groups.values())
                if group is None:
                    return
                group.admit()
                idle = [key for key, each in self._groups.items() if not each.filling]
                for key in idle[:-IDLE_GROUPS_KEPT]:
                    del self._groups[key]
            with self._device_lock:
                self._iterate(group)
            beat()

    def _iterate(self, group: BatchGroup) -> None:
        """Run one step of a group's batch, then decode the samples that reached their step."""
        try:
            self._prepare([task.sample for task in group.active if task.sample.x is None])
            if self._fixed_sizes:
                self._warm_up(group)
            self._step([task.sample for task in group.active if not task.reached], group)
            self._decode_reached(group)
        except Exception as error:  # noqa: BLE001 - every error goes to the waiting futures
            self._recover(group, error)
        group.active = [task for task in group.active if not task.future.done()]

    def _prepare(self, samples: Sequence[SampleState]) -> None:
        """Encode the texts of new samples, all prompts in one call, and place them at their first
        step.
        """
        wanted = {
            self._text_key(sample, prompt, branch): (sample.request, prompt, branch)
            for sample in samples
            for prompt, branch in zip(sample.prompts, sample.branches, strict=True)
        }
        texts = {key: self._texts[key] for key in wanted if key in self._texts}
        prompts = {key: each for key, each in wanted.items() if not each[2].unconditional}
        fresh = sorted(prompts.keys() - texts.keys(), key=str)
        telemetry.texts("renderer", len(prompts) - len(fresh), len(fresh))
        if fresh:
            with applied(self._conditions, [wanted[key][0] for key in fresh]):
                encoded = self._family.encode([wanted[key][1] for key in fresh])
            texts |= dict(zip(fresh, encoded, strict=True))
        for key in wanted.keys() - texts.keys():
            request, prompt, _ = wanted[key]
            with applied(self._conditions, [request]):
                texts[key] = self._family.encode_negative(prompt)
        self._texts.update(texts)
        for sample in samples:
            request = sample.request
            sample.conditionings = [
                texts[self._text_key(sample, prompt, branch)]
                | self._conditioning(request, branch.unconditional)
                for prompt, branch in zip(sample.prompts, sample.branches, strict=True)
            ]
            self._start(sample)

    def _start(self, sample: SampleState) -> None:
        """Place a sample at its first step: noise, or an image's latents with as much noise as that
        step has. Draws from its generator in the order of diffusers' pipelines. The sample has no
        `x` until all else is there.
        """
        request, table, generator = sample.request, sample.sampler_table, sample.generator
        generator.manual_seed(sample.seed)
        image, mask, family = request.image, request.mask, self._family
        from_noise = not image or bool(mask and not request.first_step)
        clean = None
        if image and not (family.fills and from_noise):
            clean = self._drawn(self._encoded(request), request, generator)
        noise = family.noise(request, generator)
        if mask:
            hole = torch.from_numpy(mask_of(request) >= MASKED).float().to(family.device)
            shrunk = family.mask(hole, request)
            # diffusers draws this where it has no use for it too
            encoded = self._encoded(request, hole if family.fills else None)
            left = self._drawn(encoded, request, generator)
            if family.fills:
                filling = {"filling": torch.cat([shrunk, left])}
                sample.conditionings = [each | filling for each in sample.conditionings]
            elif clean is not None:
                sample.kept = Kept(clean, noise, shrunk)
        if clean is None or from_noise:
            sample.x = noise * table.start
        else:
            signal, level = table.levels[sample.call].tolist()
            sample.x = signal * clean + level * noise

    def _encoded(self, request: RenderRequest, hole: Tensor | None = None) -> Tensor:
        """The encoder's distribution for the request's image, grey where `hole` is 1. Images
        that many samples share are encoded once.
        """
        image, mask = request.image, request.mask
        assert image
        masked = mask.sha256 if mask and hole is not None else ""
        key = image.sha256, masked, request.width, request.height
        if (found := self._images.get(key)) is None:
            pixels = torch.from_numpy(image.pixels * 2 - 1).to(self._family.device)
            if hole is not None:
                pixels = pixels * (1 - hole)[..., None]
            found = self._images[key] = self._family.encode_image(pixels.permute(2, 0, 1))
        return found

    def _drawn(self, encoded: Tensor, request: RenderRequest, generator: torch.Generator) -> Tensor:
        """Latents out of an encoder's distribution."""
        mean, deviation = encoded
        noise = draw(mean.shape, generator, mean.device)
        return self._family.latents(mean + deviation * noise, request)

    def _text_key(self, sample: SampleState, prompt: Prompt, branch: Branch) -> Hashable:
        """Equal for texts whose encodings are equal."""
        keys = (condition.text_key(sample.request) for condition in self._conditions)
        return prompt, branch.unconditional, *keys

    def _conditioning(self, request: RenderRequest, unconditional: bool) -> Conditioning:
        found: Conditioning = {}
        for condition in self._conditions:
            found |= condition.conditioning(request, unconditional=unconditional)
        return found

    def _warm_up(self, group: BatchGroup) -> None:
        """Run the model on each batch size that the group may have and it has not met, and the
        decoder.
        """
        most = group.limit * max(len(task.sample.branches) for task in group.active)
        if most <= group.warm:
            return
        sample = group.active[0].sample
        timestep = sample.sampler_table.rows[:1, 0].to(sample.latents.device)
        with suspended():
            for size in sizes(most):
                x = torch.stack([sample.latents] * size)
                texts, requests = [sample.conditionings[0]] * size, [sample.request] * size
                with applied(self._conditions, requests, [sample.step] * size):
                    self._family.predict(x, timestep.expand(size), texts, requests)
            self._family.decode(sample.latents[None], sample.request)
        group.warm = most

    def _step(self, samples: Sequence[SampleState], group: BatchGroup) -> None:
        """One call of the model for each sample that does not leave it out. No sample changes
        unless all of it succeeds.
        """
        if not samples:
            return
        started = perf_counter()
        x = torch.stack([sample.latents for sample in samples])
        rows = torch.stack([sample.sampler_table.rows[sample.call] for sample in samples])
        rows = rows.to(x.device)
        # one column per coefficient of a Call, each shaped to multiply x
        timestep, c_in, c_skip, c_out = (_wide(column, x) for column in rows[:, :NUMBERS].T)
        out = self._predicted(samples, x * c_in, timestep.flatten(), group)
        x0 = c_skip * x + c_out * out
        for sample in samples:
            if sample.sampler_table.has_noise and sample.spare is None:
                sample.spare = draw(x.shape[1:], sample.generator, x.device)
        parts = [
            x,
            x0,
            *(_stacked([getattr(sample, name) for sample in samples], x) for name in SAMPLE_PARTS),
        ]
        mixes = rows[:, NUMBERS:].view(len(samples), 2, MIXED, *[1] * (x.ndim - 1))
        after, base = (mixes * torch.stack(parts, 1)[:, None]).sum(2).unbind(1)
        # copies, because a view would keep the whole batch in memory
        ahead = [
            sample.kept.within(each, sample.sampler_table.levels[sample.call + 1])
            if sample.kept
            else each.clone()
            for sample, each in zip(samples, after, strict=True)
        ]
        due = [sample.predicted[sample.call] for sample in samples]
        predictions = [
            (sample.call, each.clone()) if sample.every > 1 and predicted else None
            for sample, each, predicted in zip(samples, out, due, strict=True)
        ]
        estimates, bases = ([each.clone() for each in every] for every in (x0, base))
        share = (perf_counter() - started) / (sum(due) or len(samples))
        for sample, prediction, *changed in zip(
            samples, predictions, ahead, estimates, bases, strict=True
        ):
            if prediction:
                sample.predictions = (*sample.predictions[-1:], prediction)
            if sample.predicted[sample.call] or not any(due):
                sample.seconds += share
            sample.before, sample.spare = sample.x0, None
            sample.x, sample.x0, sample.base = changed
            sample.call += 1
        if any(due):
            self.stats.steps += 1
            self.stats.used += sum(due)
            self.stats.places += group.limit
            telemetry.batch("renderer", sum(due), group.limit)

    def _predicted(
        self, samples: Sequence[SampleState], x: Tensor, timestep: Tensor, group: BatchGroup
    ) -> Tensor:
        """Each sample's prediction: the model's, or a forecast where its call is left out."""
        due = [index for index, each in enumerate(samples) if each.predicted[each.call]]
        if len(due) == len(samples):
            return self._predict(samples, x, timestep, group)
        out = torch.empty_like(x)
        if due:
            asked = [samples[index] for index in due]
            out[due] = self._predict(asked, x[due], timestep[due], group)
        for index, sample in enumerate(samples):
            if not sample.predicted[sample.call]:
                out[index] = sample.forecast
        return out

    def _predict(
        self, samples: Sequence[SampleState], x: Tensor, timestep: Tensor, group: BatchGroup
    ) -> Tensor:
        """The weighted sums of the branches' predictions, all made in one call: the first branches
        of all samples, then the second ones of those that have two in this step, and so on.
        """
        ranks = list(zip_longest(*(sample.active_branches for sample in samples)))
        rows = [(index, *branch) for rank in ranks for index, branch in enumerate(rank) if branch]
        indices, texts, weights, shares = map(list, zip(*rows, strict=True))
        self.stats.rows += len(rows)
        if self._fixed_sizes:
            padding = next(size for size in sizes(group.warm) if size >= len(rows)) - len(rows)
            indices, texts = indices + indices[:1] * padding, texts + texts[:1] * padding
        requests = [samples[index].request for index in indices]
        steps = [samples[index].step for index in indices]
        with applied(self._conditions, requests, steps):
            predicted = self._family.predict(x[indices], timestep[indices], texts, requests)
        out = _summed(predicted, weights, ranks)
        if self._family.keeps_norm:
            own = _norm(_summed(predicted, shares, ranks))
            out *= own / _norm(out).clamp_min(torch.finfo(out.dtype).tiny)
        return out

    def _decode_reached(self, group: BatchGroup) -> None:
        """Decode the samples that reached their step, as many in a call as fit the memory."""
        reached = [task for task in group.active if task.reached]
        finished = [task for task in reached if task.sample.finished]
        previewed = [task for task in reached if not task.sample.finished]
        for tasks, decode in (
            (finished, self._family.decode),
            (previewed, self._family.preview),
        ):
            while left := [task for task in tasks if not task.future.done()]:
                chunk = left[: 1 if self._fixed_sizes else group.decodable]
                try:
                    self._decode(chunk, decode)
                except Exception as error:
                    if len(chunk) == 1 or not out_of_memory(error):
                        raise
                    free_memory()
                    group.decodable = len(chunk) // 2

    def _decode(
        self, tasks: Sequence[StepTask], decode: Callable[[Tensor, RenderRequest], Tensor]
    ) -> None:
        started = perf_counter()
        ready = torch.stack([task.sample.decodable for task in tasks])
        images = decode(ready, tasks[0].sample.request).cpu().numpy()
        share = (perf_counter() - started) / len(tasks)
        for task, image in zip(tasks, images, strict=True):
            task.sample.seconds += share
            with suppress(InvalidStateError):  # cancelled meanwhile
                task.future.set_result(image)

    def _recover(self, group: BatchGroup, error: Exception) -> None:
        """Handle a failed iteration: halve the batch when memory ran out, else retry one by one."""
        if device_lost(error):
            _fail(group, error)
        elif out_of_memory(error):
            self._texts.clear()
            self._images.clear()
            free_memory()
            if len(group.active) == 1:
                reason = "not even one image of this size fits the device's memory"
                _fail(group, OutOfMemory(reason))
            with self._changed:
                group.shrink()
        elif len(group.active) == 1:
            _fail(group, JobError(f"the renderer failed: {type(error).__name__}: {error}"))
        else:
            tasks, group.active = group.active, []
            for task in tasks:
                alone = BatchGroup(1, [task])
                self._iterate(alone)
                group.active += alone.active


def _summed(predicted: Tensor, weights: Sequence[float], ranks: Sequence[Sequence[Any]]) -> Tensor:
    """The weighted sums of the samples' predictions. These come rank by rank, and padding last."""
    factors = torch.tensor(weights, device=predicted.device)
    weighted = predicted[: len(weights)] * _wide(factors, predicted)
    sums, done = weighted[: len(ranks[0])], len(ranks[0])
    for rank in ranks[1:]:
        several = [index for index, branch in enumerate(rank) if branch]
        sums[several] += weighted[done : done + len(several)]
        done += len(several)
    return sums


def _norm(x: Tensor) -> Tensor:
    """The norm of each token of latents [n, tokens, channels]."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm


def _stacked(parts: Sequence[Tensor | None], x: Tensor) -> Tensor:
    """One part of each sample, zeros for those that have none."""
    return torch.stack([torch.zeros_like(x[0]) if part is None else part for part in parts])


def _wide(column: Tensor, x: Tensor) -> Tensor:
    """One number per sample, shaped to multiply [n, ...]."""
    return column.view(-1, *[1] * (x.ndim - 1))


def _fail(group: BatchGroup, error: Exception) -> None:
    for task in group.active:
        with suppress(InvalidStateError):
            task.future.set_exception(error)
