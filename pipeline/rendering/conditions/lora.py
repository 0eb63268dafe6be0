"""LoRAs: low-rank additions to a model's layers, for each row of a batch its own.

Hu et al. 2021, https://arxiv.org/abs/2106.09685. The model's own weights are never changed: a hook
on each layer adds scale · B(A(x)) to the rows that asked for it, as in Punica's gathered products
(Chen et al. 2023, https://arxiv.org/abs/2310.18547). So rows of different LoRAs share a batch, and
rows without one compute what they would alone.
"""

import hashlib
import threading
from collections.abc import Generator, Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from cachetools import LRUCache
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import JobError
from pipeline.job import Lora, RenderRequest
from pipeline.models import Models
from pipeline.models.loras import LoraFolder
from pipeline.profile import DiffusersProfile
from pipeline.rendering.conditions.base import Condition

KEPT_BYTES = 2 << 30
"""Bytes of LoRAs that stay on the device; the least recently used ones leave."""
_NAME = "pressrun"


@dataclass(frozen=True, eq=False)
class Layer:
    """A LoRA's addition to one layer: `scale` · `up`(`down`(x))."""

    down: Tensor
    up: Tensor
    scale: float

    def __call__(self, base: nn.Module, x: Tensor) -> Tensor:
        """The addition to the layer's output for some of its rows."""
        x = x.to(self.down.dtype)
        if isinstance(base, nn.Conv2d):
            # a padding in another mode than zeros is refused when it is loaded
            inner = functional.conv2d(x, self.down, None, base.stride, base.padding, base.dilation)
            return functional.conv2d(inner, self.up) * self.scale
        return functional.linear(functional.linear(x, self.down), self.up) * self.scale


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
class Share:
    """The rows of a batch that one LoRA is added to, each with its weight."""

    lora: LoadedLora
    rows: list[int]
    weights: list[float]


class Loras(Condition):
    """The LoRAs of a pipeline, from the folder that its profile names."""

    def __init__(self, pipe: Any, models: Models, profile: DiffusersProfile) -> None:
        self._pipe, self._device_lock = pipe, models.device_lock
        self._folder: LoraFolder | None = models.loras(profile)
        self._compiled = profile.compile
        self._loaded: LRUCache[str, LoadedLora] = LRUCache(
            KEPT_BYTES, getsizeof=lambda lora: min(lora.nbytes, KEPT_BYTES)
        )
        self._lock = threading.Lock()
        self._hooked = set[nn.Module]()
        self._batch, self._shares = 0, list[Share]()

    def check(self, request: RenderRequest) -> None:
        """Load the request's LoRAs. Raises JobError for one that cannot be used."""
        if not request.loras:
            return
        if self._compiled:
            raise JobError("renderer.compile and LoRAs do not go together; set it to false")
        for lora in request.loras:
            if lora.weight and self._known(lora) is None:
                with self._device_lock:
                    self._found(lora)

    def text_key(self, request: RenderRequest) -> Hashable:
        """The LoRAs that change a text encoder."""
        return tuple(
            (lora.digest, lora.weight)
            for lora in request.loras
            if lora.weight and self._found(lora).changes_texts
        )

    @contextmanager
    def applied(self, requests: Sequence[RenderRequest]) -> Generator[None]:
        """Let the hooks add each request's LoRAs to its rows."""
        asked: dict[str, tuple[Lora, list[int], list[float]]] = {}
        for row, request in enumerate(requests):
            for lora in request.loras:
                if lora.weight:
                    _, rows, weights = asked.setdefault(lora.digest, (lora, [], []))
                    rows.append(row)
                    weights.append(lora.weight)
        self._batch = len(requests)
        self._shares = [
            Share(self._found(lora), rows, weights) for lora, rows, weights in asked.values()
        ]
        try:
            yield
        finally:
            self._shares = []

    def _known(self, lora: Lora) -> LoadedLora | None:
        with self._lock:
            return self._loaded.get(lora.digest)

    def _found(self, lora: Lora) -> LoadedLora:
        """The LoRA on the device. The caller holds the device lock. Raises JobError."""
        if (found := self._known(lora)) is None:
            found = self._load(lora)
            with self._lock:
                self._loaded[lora.digest] = found
        return found

    def _load(self, lora: Lora) -> LoadedLora:
        if self._folder is None:
            raise JobError("the profile's renderer names no folder of LoRAs (renderer.loras)")
        file, _, wanted = self._folder.find(lora.name)
        data = file.read_bytes()
        if (digest := hashlib.sha256(data).hexdigest()) != lora.digest:
            raise JobError(
                f"the LoRA {lora.name!r} here is {digest[:12]}, and the row's is {lora.digest[:12]}"
            )
        state = load(data)
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise JobError(f"the LoRA {lora.name!r} holds numbers that are not finite")
        layers, texts = dict[nn.Module, Layer](), False
        try:
            self._pipe.load_lora_weights(state, adapter_name=_NAME)
            for part, model in self._pipe.components.items():
                found = _layers(model) if isinstance(model, nn.Module) else {}
                texts = texts or bool(found and part.startswith("text_encoder"))
                layers |= found
        except AttributeError as error:
            raise JobError(f"{type(self._pipe).__name__} takes no LoRAs ({error})") from error
        except (KeyError, RuntimeError, ValueError) as error:
            said = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
            raise JobError(f"the LoRA {lora.name!r} does not fit the model: {said}") from error
        finally:
            if hasattr(self._pipe, "unload_lora_weights"):
                self._pipe.unload_lora_weights()
        if len(layers) != wanted:
            raise JobError(
                f"the LoRA {lora.name!r} does not fit the model: {wanted - len(layers)} of its "
                f"{wanted} layers are not there"
            )
        for module in layers.keys() - self._hooked:
            module.register_forward_hook(self._add)
            self._hooked.add(module)
        return LoadedLora(layers, texts)

    def _add(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """The layer's output with the additions of the batch's LoRAs; None leaves it as it is."""
        shares = [share for share in self._shares if module in share.lora.layers]
        if not shares:
            return None
        x = given[0]
        if len(x) % self._batch:
            raise JobError(f"{type(self._pipe).__name__} mixes the rows of a batch: no LoRAs")
        output = output.clone()
        for share in shares:
            starts = range(0, len(x), self._batch)  # the model's rows may be the batch's twice over
            rows = [start + row for start in starts for row in share.rows]
            weights = torch.tensor(share.weights * len(starts), device=x.device, dtype=output.dtype)
            added = share.lora.layers[module](module, x[rows])
            output[rows] += weights.view(-1, *[1] * (output.ndim - 1)) * added.to(output.dtype)
        return output


def _layers(model: nn.Module) -> dict[nn.Module, Layer]:
    """The layers that PEFT has put into a model. Raises ValueError for what is no plain LoRA."""
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
        down, up = (part.weight.detach().to(base.weight.dtype) for part in (down, up))
        found[base] = Layer(down, up, float(module.scaling[_NAME]))
    return found
