"""LoRAs: low-rank additions to a model's layers, for each row of a batch its own.

Hu et al. 2021, https://arxiv.org/abs/2106.09685. The model's own weights are never changed: a hook
on each layer adds scale · B(A(x)) to the rows that asked for it, as in Punica's gathered products
(Chen et al. 2023, https://arxiv.org/abs/2310.18547). So rows of different LoRAs share a batch, and
rows without one compute what they would alone.
"""

import threading
from collections.abc import Generator, Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from cachetools import LRUCache
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import JobError
from pipeline.job import Lora, RenderRequest
from pipeline.models import Models
from pipeline.models.faults import device_lost, out_of_memory, with_room
from pipeline.models.named.loras import LoraFolder
from pipeline.profile import DiffusersProfile
from pipeline.rendering.conditions.base import Condition
from pipeline.rendering.conditions.weights import read
from pipeline.watchdog import suspended

KEPT_BYTES = 2 << 30
"""Bytes of LoRAs that stay on the device; the least recently used ones leave."""
_NAME = "pressrun"
_DOWN = ("lora_A.weight", "lora.down.weight", "lora_down.weight", "lora_linear_layer.down.weight")


@dataclass(frozen=True, eq=False)
class Layer:
    """A LoRA's addition to one layer, up(down(x)): `down` [rank, in, …], `up` [out, rank], which
    holds the LoRA's own scale too.
    """

    down: Tensor
    up: Tensor


@dataclass(frozen=True, eq=False)
class LoadedLora:
    """A LoRA on the device, by the layers that it adds to."""

    layers: dict[nn.Module, Layer]
    changes_texts: bool

    @property
    def nbytes(self) -> int:
        """Its size on the device."""
        return sum(each.down.nbytes + each.up.nbytes for each in self.layers.values())


@dataclass(frozen=True, eq=False)
class Additions:
    """One LoRA for each of some rows of a batch: `rows`, the LoRA of each as an index into `loras`
    (`which`), and its weight, all [n].
    """

    loras: Sequence[LoadedLora]
    rows: Tensor
    which: Tensor
    weights: Tensor

    def repeated(self, times: int, batch: int) -> "Additions":
        """The additions to a call in which the batch comes `times` times over."""
        starts = torch.arange(times, device=self.rows.device)[:, None] * batch
        rows, which, weights = (starts + self.rows).flatten(), self.which, self.weights
        return Additions(self.loras, rows, which.repeat(times), weights.repeat(times))

    def add(self, module: nn.Module, x: Tensor, output: Tensor) -> None:
        """Add to a layer's output for the input `x`, row by row."""
        layers = [lora.layers.get(module) for lora in self.loras]
        if not any(layers):
            return
        down, up = (part[self.which] for part in _stacked(layers))
        x = x[self.rows].to(down.dtype)
        if isinstance(module, nn.Conv2d):
            # a convolution in groups, one for each row
            inner = functional.conv2d(
                x.reshape(1, -1, *x.shape[2:]), down.flatten(0, 1), None,
                module.stride, module.padding, module.dilation, groups=len(x),
            )  # fmt: skip
            added = up @ inner.view(len(x), down.shape[1], -1)
        else:
            added = x.view(len(x), -1, x.shape[-1]) @ down.mT @ up.mT
        weighted = added.view(len(x), *output.shape[1:]) * self.weights.view(
            -1, *[1] * (output.ndim - 1)
        )
        output.index_add_(0, self.rows, weighted.to(output.dtype))


def _stacked(layers: Sequence[Layer | None]) -> tuple[Tensor, Tensor]:
    """The matrices of several LoRAs for one layer, padded with zeros to the highest rank: [loras,
    rank, in, …] and [loras, out, rank]; all zeros for a LoRA that does not add to the layer.
    """
    some = max((each for each in layers if each), key=lambda each: len(each.down))
    down = some.down.new_zeros(len(layers), *some.down.shape)
    up = some.up.new_zeros(len(layers), *some.up.shape)
    for index, each in enumerate(layers):
        if each:
            rank = len(each.down)
            down[index, :rank], up[index, :, :rank] = each.down, each.up
    return down, up


class Loras(Condition):
    """The LoRAs of a pipeline, from the folder that its profile names."""

    def __init__(self, pipe: Any, models: Models, profile: DiffusersProfile) -> None:
        self._pipe, self._device_lock = pipe, models.device_lock
        self._folder = models.weights(LoraFolder, profile.loras)
        self._compiled = profile.compile
        self._loaded: LRUCache[str, LoadedLora] = LRUCache(
            KEPT_BYTES, getsizeof=lambda lora: min(lora.nbytes, KEPT_BYTES)
        )
        self._lock = threading.Lock()
        self._held = dict[str, LoadedLora]()
        self._texts = dict[str, bool]()
        self._hooked = set[nn.Module]()
        self._batch = 0
        self._additions_by_times = dict[int, list[Additions]]()

    def check(self, request: RenderRequest) -> None:
        """Load the request's LoRAs. Raises JobError for one that cannot be used."""
        if not request.loras:
            return
        if self._compiled:
            raise JobError("renderer.compile and LoRAs do not go together; set it to false")
        for lora in request.loras:
            if lora.weight and self._known(lora) is None:
                with self._device_lock:
                    with_room(partial(self._found, lora), self._forget)

    def _forget(self) -> None:
        with self._lock:
            self._loaded.clear()

    def text_key(self, request: RenderRequest) -> Hashable:
        """The LoRAs that change a text encoder."""
        asked = [lora for lora in request.loras if lora.weight]
        for lora in asked:
            if lora.digest not in self._texts:
                self._found(lora)
        return tuple((lora.digest, lora.weight) for lora in asked if self._texts[lora.digest])

    @contextmanager
    def applied(self, requests: Sequence[RenderRequest], steps: Sequence[int]) -> Generator[None]:
        """Let the hooks add each request's LoRAs to its rows."""
        asked = [[lora for lora in request.loras if lora.weight] for request in requests]
        if all(loras == asked[0] for loras in asked):
            asked = asked[:1]  # the same for every row, however the model orders them
        self._batch = len(asked)
        # the first LoRA of each row, then the second ones: no row comes twice in one addition
        ranks = zip_longest(*asked)
        additions = [self._additions(rank) for rank in ranks]
        # whatever else has been loaded meanwhile, the next step most likely needs these
        self._held = {lora.digest: self._found(lora) for loras in asked for lora in loras}
        self._additions_by_times = {1: additions} if additions else {}
        try:
            yield
        finally:
            self._additions_by_times = {}

    def _additions(self, loras: Sequence[Lora | None]) -> Additions:
        """One LoRA, or none, for each row of a batch."""
        loaded = {lora.digest: self._found(lora) for lora in loras if lora}
        places = {digest: place for place, digest in enumerate(loaded)}
        given = [(row, lora) for row, lora in enumerate(loras) if lora]
        columns = (
            [row for row, _ in given],
            [places[lora.digest] for _, lora in given],
            [lora.weight for _, lora in given],
        )
        device = self._pipe._execution_device
        rows, which, weights = (torch.tensor(each, device=device) for each in columns)
        return Additions(list(loaded.values()), rows, which, weights)

    def _known(self, lora: Lora) -> LoadedLora | None:
        with self._lock:
            return self._held.get(lora.digest) or self._loaded.get(lora.digest)

    def _found(self, lora: Lora) -> LoadedLora:
        """The LoRA on the device. The caller holds the device lock. Raises JobError."""
        if (found := self._known(lora)) is None:
            with suspended():
                found = self._load(lora)
            with self._lock:
                self._loaded[lora.digest] = found
            self._texts[lora.digest] = found.changes_texts
        return found

    def _load(self, lora: Lora) -> LoadedLora:
        if self._folder is None:
            raise JobError("the profile's renderer names no folder of LoRAs (renderer.loras)")
        (file, _, wanted), before = read(self._folder, lora)[:2]
        if not hasattr(self._pipe, "load_lora_weights"):
            raise JobError(f"{type(self._pipe).__name__} takes no LoRAs")
        layers, texts = dict[nn.Module, Layer](), False
        # by its path, because diffusers reads the scales in a file's metadata there alone
        given = {"weight_name": file.name, "local_files_only": True, "use_safetensors": True}
        try:
            converted = self._pipe.lora_state_dict(file.parent, **given)
            self._pipe.load_lora_weights(file.parent, adapter_name=_NAME, **given)
            for part, model in self._pipe.components.items():
                is_model = isinstance(model, nn.Module)
                found = _layers(model, self._pipe._execution_device) if is_model else {}
                texts = texts or bool(found and part.startswith("text_encoder"))
                layers |= found
        except Exception as error:
            # any file may come here, and diffusers and PEFT raise whatever their code meets
            if device_lost(error) or out_of_memory(error):
                raise
            said = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
            raise JobError(f"the LoRA {lora.name!r} does not fit the model: {said}") from error
        finally:
            self._pipe.unload_lora_weights()
        # a converter may divide a layer, such as joined queries, keys and values
        names = converted[0] if isinstance(converted, tuple) else converted
        wanted = max(wanted, sum(name.endswith(_DOWN) for name in names))
        if len(layers) != wanted:
            raise JobError(
                f"the LoRA {lora.name!r} does not fit the model: {wanted - len(layers)} of its "
                f"{wanted} layers are not there"
            )
        after = file.stat()
        if (before.st_mtime_ns, before.st_ino) != (after.st_mtime_ns, after.st_ino):
            raise JobError(f"the LoRA {lora.name!r} was exchanged while it was loaded")
        for module in layers.keys() - self._hooked:
            module.register_forward_hook(self._add)
            self._hooked.add(module)
        return LoadedLora(layers, texts)

    def _add(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        """Add the batch's LoRAs to a layer's output."""
        if not self._additions_by_times:
            return
        times, rest = divmod(len(given[0]), self._batch)
        if self._batch > 1 and (rest or times > 2):
            raise JobError(f"{type(self._pipe).__name__} mixes the rows of a batch")
        if times not in self._additions_by_times:  # a pipeline that guides doubles its rows
            once = self._additions_by_times[1]
            self._additions_by_times[times] = [each.repeated(times, self._batch) for each in once]
        for addition in self._additions_by_times[times]:
            addition.add(module, given[0], output)


def _layers(model: nn.Module, device: torch.device) -> dict[nn.Module, Layer]:
    """The layers that PEFT has put into a model, on the device, where an offloaded model is not.
    Raises ValueError for what is no plain LoRA.
    """
    found = dict[nn.Module, Layer]()
    tuned: list[Any] = [each for each in model.modules() if isinstance(each, BaseTunerLayer)]
    for module in tuned:
        base = module.get_base_layer()
        plain = isinstance(base, nn.Linear) or (
            isinstance(base, nn.Conv2d) and base.groups == 1 and base.padding_mode == "zeros"
        )
        down, up = module.lora_A[_NAME], module.lora_B[_NAME]
        if not plain or module.use_dora.get(_NAME) or up.bias is not None:
            raise ValueError(f"a {type(base).__name__} with more than low-rank matrices")
        if up.weight.ndim == 4 and up.weight.shape[2:] != (1, 1):
            raise ValueError(f"a convolution of {tuple(up.weight.shape[2:])} behind the rank")
        up = up.weight.detach().flatten(1) * module.scaling[_NAME]
        to = {"device": device, "dtype": base.weight.dtype}
        found[base] = Layer(down.weight.detach().to(**to), up.to(**to))
    return found
