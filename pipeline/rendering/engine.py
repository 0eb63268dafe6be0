"""The engine: step-level continuous batching of candidates from many jobs.

One thread owns the model. Every turn it takes the candidates of one lane (see `Order.batch_key`),
runs one denoising step of all of them, each at its own timestep, hands out those that have reached
the step they were sent to, and fills their places from whoever waits. What shares a batch changes
no picture: noise comes from a candidate's own seed, and a step is arithmetic of its own numbers.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

import torch
from cachetools import LRUCache
from torch import Tensor

from pipeline import watching
from pipeline.errors import JobError
from pipeline.job import Order, Picture
from pipeline.models.faults import device_lost, free_memory, out_of_memory
from pipeline.pulse import beat, patient
from pipeline.rendering.families import Conditioning, Family
from pipeline.rendering.lanes import Lane, Latent, Leg, choose, sizes

TEXTS_KEPT = 256
TRAJECTORIES_KEPT = 64
IDLE_LANES_KEPT = 16
"""Each remembers how many candidates fit the device, and whether a compiled model has met them."""


@dataclass
class Tally:
    """What the engine has done. `samples` are the model's input rows, guidance's second included;
    `places` those that its batches had for candidates, `filled` those that were taken.
    """

    turns: int = 0
    samples: int = 0
    filled: int = 0
    places: int = 0

    @property
    def occupancy(self) -> float:
        """The mean filled part of the batch."""
        return self.filled / self.places if self.places else 0.0


class Engine:
    """Runs candidates of one model. `limit` are the places of a batch, halved for a size whose
    batch does not fit the device's memory. After the part `guided_until` of its steps a candidate
    is no longer guided. With `fixed_sizes`, for a compiled model, its input has one of a few
    numbers of rows, each of which it has met before the first step. Whoever shares the device holds
    `turn` while using it.
    """

    def __init__(
        self,
        family: Family,
        *,
        limit: int,
        turn: AbstractContextManager[object],
        guided_until: float = 1.0,
        fixed_sizes: bool = False,
    ) -> None:
        self._family, self._limit, self._turn = family, limit, turn
        self._guided_until, self._fixed_sizes = guided_until, fixed_sizes
        self._lanes: dict[Hashable, Lane] = {}
        self._texts: LRUCache[tuple[str, bool], Conditioning] = LRUCache(TEXTS_KEPT)
        self._trajectory = lru_cache(TRAJECTORIES_KEPT)(family.trajectory)
        self._changed = threading.Condition()
        self._closed = False
        self.tally = Tally()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def begin(self, order: Order, seed: int) -> Latent:
        """A candidate at its beginning. Raises JobError and Unsupported for what cannot be run."""
        self._family.check(order)
        return Latent(order, seed, self._trajectory(order.steps, order.width, order.height))

    def submit(self, latent: Latent, until: int) -> "Future[Picture]":
        """Take a candidate to a step; the future is its picture there: finished at the last step,
        before that of the estimate. Cancelling the future takes the candidate out of the batch.

        The future raises JobError, or a lost device's own error.
        """
        leg = Leg(latent, until)
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            key = latent.order.batch_key
            # the lane used last comes last
            lane = self._lanes.pop(key) if key in self._lanes else Lane(self._limit)
            self._lanes[key] = lane
            lane.add(leg)
            self._changed.notify()
        return leg.future

    def close(self) -> None:
        """End the thread; what is under way is cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        for lane in self._lanes.values():
            for leg in [*lane.active, *lane.waiting]:
                leg.future.cancel()

    @torch.inference_mode()
    def _serve(self) -> None:
        while lane := self._next():
            with self._turn:
                self._work(lane)
            beat()

    def _next(self) -> Lane | None:
        """The lane whose turn it is, with its places filled; None once closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or any(lane.filling for lane in self._lanes.values())
            )
            lane = None if self._closed else choose(self._lanes.values())
            if lane:
                lane.admit()
            idle = [key for key, each in self._lanes.items() if not each.filling]
            for key in idle[:-IDLE_LANES_KEPT]:
                del self._lanes[key]
            return lane

    def _work(self, lane: Lane) -> None:
        """One step of a lane's batch, and the pictures of those that have arrived then."""
        try:
            self._begin([leg.latent for leg in lane.active if leg.latent.x is None])
            if self._fixed_sizes and not lane.warm:
                self._warm_up(lane)
            self._step([leg.latent for leg in lane.active if not leg.arrived], lane.limit)
            self._show(lane)
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes to who waits for it
            self._recover(lane, error)
        lane.active = [leg for leg in lane.active if not leg.future.done()]

    def _begin(self, latents: Sequence[Latent]) -> None:
        """Read the texts of new candidates, all new texts in one call, and draw their noise."""
        texts = self._read({latent.order.prompt for latent in latents})
        for latent in latents:
            order = latent.order
            shown, hidden = self._family.references(order)
            latent.text = texts[order.prompt] | shown
            if self._family.guides(order):
                latent.negative = self._read_negative(order.negative) | hidden
            latent.generator.manual_seed(latent.seed)
            noise = self._family.noise(order, latent.generator)
            latent.x = noise * latent.trajectory.start

    def _read(self, prompts: set[str]) -> dict[str, Conditioning]:
        known = {p: self._texts[p, True] for p in prompts if (p, True) in self._texts}
        fresh = sorted(prompts - known.keys())
        watching.texts("renderer", len(known), len(fresh))
        if fresh:
            found = dict(zip(fresh, self._family.encode(fresh), strict=True))
            self._texts.update({(prompt, True): text for prompt, text in found.items()})
            known |= found
        return known

    def _read_negative(self, prompt: str) -> Conditioning:
        if (prompt, False) not in self._texts:
            self._texts[prompt, False] = self._family.encode_negative(prompt)
        return self._texts[prompt, False]

    def _warm_up(self, lane: Lane) -> None:
        """Show the model each size of input that the lane may have."""
        latent = lane.active[0].latent
        most = lane.limit * (2 if latent.negative else 1)
        timestep = latent.trajectory.table[:1, 0].to(latent.latents.device)
        with patient():
            for size in sizes(most):
                x = torch.stack([latent.latents] * size)
                texts, orders = [latent.text] * size, [latent.order] * size
                self._family.predict(x, timestep.expand(size), texts, orders)
        lane.warm = True

    def _step(self, latents: Sequence[Latent], places: int) -> None:
        """One denoising step of each. Nothing of a candidate changes unless all goes well."""
        if not latents:
            return
        started = perf_counter()
        x = torch.stack([latent.latents for latent in latents])
        rows = torch.stack([latent.trajectory.table[latent.step] for latent in latents])
        timestep, scale, clean, output, keep, toward, history, spread = (
            _wide(column, x) for column in rows.to(x.device).T
        )
        out = self._predict(latents, x * scale, timestep.flatten(), places)
        x0 = clean * x + output * out
        after = keep * x + toward * x0
        if any(latent.trajectory.has_history for latent in latents):
            # a first step has no history: its factor is 0
            after += history * torch.stack([latent.shown for latent in latents])
        if any(latent.trajectory.has_noise for latent in latents):
            after += spread * torch.stack([self._noise(latent) for latent in latents])
        share = (perf_counter() - started) / len(latents)
        for latent, ahead, estimate in zip(latents, after, x0, strict=True):
            # a view would keep the whole batch in memory
            latent.x, latent.x0, latent.spare = ahead.clone(), estimate.clone(), None
            latent.step += 1
            latent.seconds += share
        self.tally.turns += 1
        self.tally.filled += len(latents)
        self.tally.places += places
        watching.batch("renderer", len(latents), places)

    def _predict(
        self, latents: Sequence[Latent], x: Tensor, timestep: Tensor, places: int
    ) -> Tensor:
        """The model's output; a guided candidate has a second row in the same call."""
        guided = [
            i
            for i, latent in enumerate(latents)
            if latent.negative and latent.step < self._guided_until * latent.steps
        ]
        rows = [*range(len(latents)), *guided]
        texts = [latent.text for latent in latents] + [latents[i].negative or {} for i in guided]
        self.tally.samples += len(rows)
        if self._fixed_sizes:
            most = places * (2 if guided else 1)
            spare = next(size for size in sizes(most) if size >= len(rows)) - len(rows)
            rows, texts = rows + rows[:1] * spare, texts + texts[:1] * spare
        orders = [latents[i].order for i in rows]
        both = self._family.predict(x[rows], timestep[rows], texts, orders)
        both = both[: len(latents) + len(guided)]
        out, without = both[: len(x)], both[len(x) :]
        if guided:
            strength = torch.tensor([latents[i].order.guidance for i in guided], device=x.device)
            out[guided] = without + _wide(strength, x) * (out[guided] - without)
        return out

    def _noise(self, latent: Latent) -> Tensor:
        if not latent.trajectory.has_noise:
            return torch.zeros_like(latent.latents)
        if latent.spare is None:
            latent.spare = self._family.noise(latent.order, latent.generator)
        return latent.spare

    def _show(self, lane: Lane) -> None:
        """Decode those that have arrived, as many in a call as fit, and hand their pictures out."""
        arrived = [leg for leg in lane.active if leg.arrived]
        ends = [leg for leg in arrived if leg.latent.finished]
        stops = [leg for leg in arrived if not leg.latent.finished]
        for legs, decode in ((ends, self._family.decode), (stops, self._family.preview)):
            while part := [leg for leg in legs if not leg.future.done()][: lane.decodable]:
                try:
                    self._decode(part, decode)
                except Exception as error:
                    if len(part) == 1 or not out_of_memory(error):
                        raise
                    free_memory()
                    lane.decodable = len(part) // 2

    def _decode(self, legs: Sequence[Leg], decode: Callable[[Tensor, Order], Tensor]) -> None:
        started = perf_counter()
        ready = torch.stack([leg.latent.shown for leg in legs])
        pictures = decode(ready, legs[0].latent.order).cpu().numpy()
        share = (perf_counter() - started) / len(legs)
        for leg, picture in zip(legs, pictures, strict=True):
            leg.latent.seconds += share
            with suppress(InvalidStateError):  # cancelled meanwhile
                leg.future.set_result(picture)

    def _recover(self, lane: Lane, error: Exception) -> None:
        """Go on after a failed turn: with fewer at once, or without the one that fails alone."""
        if device_lost(error):
            _fail(lane, error)
        elif out_of_memory(error):
            free_memory()
            if len(lane.active) == 1:
                _fail(lane, JobError("not even one picture of this size fits the device's memory"))
            with self._changed:
                lane.shrink()
        elif len(lane.active) == 1:
            _fail(lane, JobError(f"the renderer failed: {type(error).__name__}: {error}"))
        else:
            legs, lane.active = lane.active, []
            for leg in legs:
                alone = Lane(1, [leg])
                self._work(alone)
                lane.active += alone.active


def _wide(column: Tensor, x: Tensor) -> Tensor:
    """One number per sample, shaped to multiply [n, ...]."""
    return column.view(-1, *[1] * (x.ndim - 1))


def _fail(lane: Lane, error: Exception) -> None:
    for leg in lane.active:
        with suppress(InvalidStateError):
            leg.future.set_exception(error)
