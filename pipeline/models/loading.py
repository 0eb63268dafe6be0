"""Loading of models, each once per process: local files, safetensors, no foreign code."""

import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, cast

from pipeline.errors import ModelError
from pipeline.models.batching import Batcher, DeviceLock, Item, Result
from pipeline.models.checkpoints import part_of
from pipeline.models.contents import OPEN_CLIP_CONFIG, digest, loaded_files, remarks, verify
from pipeline.models.controlnets import check_fit
from pipeline.models.files import resolve
from pipeline.models.named.folder import WeightsFolder
from pipeline.models.onnx import OnnxClassifier, onnx_file
from pipeline.models.safetensors import read_header, read_json
from pipeline.models.tokenizers import check_tokenizer
from pipeline.models.whole import LOCAL, load_whole
from pipeline.profile import DiffusersProfile, Dtype, LocalWriterProfile
from pipeline.watchdog import suspended

Weights = TypeVar("Weights", bound=WeightsFolder)

PRECISIONS: dict[Dtype, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
DENOISERS = frozenset({"unet", "transformer"})
POOLER = "pooler."
"""Weights that many encoders lack; a text's embedding is the mean of its tokens'."""
RESIDENT = frozenset({"vae", "previews", "control"})
"""Parts that are never offloaded."""
RENDERERS_PART = 2 / 3
"""Part of a CUDA device's memory that a renderer's weights may take; writer, judge and images have
the rest.
"""
LIMIT = 8 << 30
"""Bytes of diffusion models at a time, unless the settings or a CUDA device say otherwise."""
WORKING = 0.2
"""Part of a CUDA device's memory that loading another renderer leaves free, for batches."""


class Models:
    """The models of this process. Hold `device_lock` while running one on the device.

    A model is loaded once for equal settings and shared; other callers wait while it loads. No
    model runs meanwhile, so a caller that holds `device_lock` may ask only for one that is loaded.
    `cache` is the file that remembers the digests of files; `limit` bounds the bytes of diffusion
    models at a time, 0 is the device's own bound. `close` ends the batchers.
    """

    def __init__(
        self, root: Path, device: str = "auto", cache: Path | None = None, limit: int = 0
    ) -> None:
        self.device_lock = DeviceLock()
        self._root, self._asked, self._cache, self._limit = root, device, cache, limit
        self._loaded: dict[object, Any] = {}
        self._lock, self._batchers = threading.RLock(), ExitStack()

    def close(self) -> None:
        """End the batchers once their waiting items are finished."""
        self._batchers.close()

    def batcher(
        self,
        role: str,
        function: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        limit: int,
        size: Callable[[Item], int] = lambda _: 1,
    ) -> Batcher[Item, Result]:
        """A batcher whose calls take turns on the device."""
        made = Batcher(role, function, limit=limit, size=size, device_lock=self.device_lock)
        self._batchers.callback(made.close)
        return made

    @cached_property
    def device(self) -> str:
        """The torch device; `auto` is CUDA, then Apple's Metal, then the processor."""
        import torch

        if self._asked != "auto":
            return self._asked
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"

    def diffusion(self, profile: DiffusersProfile) -> Any:
        """The diffusers pipeline of a profile, on the device. Raises ModelError."""

        def load() -> Any:
            from pipeline.models.diffusion import load_adapters, load_pipeline, tune
            from pipeline.models.memory import place, shrink

            folder = self.folder(profile.model, "renderer", profile.variant)
            unet = self.folder(profile.unet, "unet") if profile.unet else None
            pipe = _loading(folder, lambda: load_pipeline(folder, unet, profile))
            if adapters := profile.image_adapters.values():
                folders = [self.folder(each.model, "image_adapter") for each in adapters]
                scales = [each.scale for each in adapters]
                names = ", ".join(map(str, folders))
                _loading(names, lambda: load_adapters(pipe, folders, scales))
            offloaded = self.offloaded(profile)

            def fit() -> None:
                shrink(pipe, profile)
                # an offloaded weight is copied as it lies now
                tune(pipe, compiled=profile.compile, channels_last=profile.channels_last)
                place(pipe, self.device, offloaded=offloaded)

            _loading(folder, fit)
            return pipe

        return self._built(profile, load)

    def remarks(self, profile: DiffusersProfile) -> list[str]:
        """Sentences on what is loaded of a profile's pipeline in place of what it asks for. Raises
        ModelError.
        """
        return remarks(self.folder(profile.model, "renderer", profile.variant), profile.variant)

    def forget(self, profile: DiffusersProfile) -> None:
        """Free the memory of a profile's pipeline, preview decoder and ControlNets, which nobody
        else holds.
        """
        from pipeline.models.faults import free_memory

        with self._lock:
            for key in list(self._loaded):
                if key == profile or (isinstance(key, tuple) and key[0] == profile):
                    del self._loaded[key]
        free_memory()

    def nbytes(self, profile: DiffusersProfile) -> int:
        """Size of a profile's weights on the device, at most. Raises ModelError."""
        offloaded = self.offloaded(profile)
        parts = self._parts(profile).items()
        return sum(size for part, size in parts if part in RESIDENT or not offloaded)

    def size(self, reference: str, role: str, dtype: Dtype) -> int:
        """Bytes of another model's weights on the device in this precision, at most. Raises
        ModelError.
        """
        files = loaded_files(self.folder(reference, role), role)
        weights = [read_header(file) for file in files if file.suffix == ".safetensors"]
        width = 4 if dtype == "float32" else 2
        sizes = [file.stat().st_size for file in files if file.suffix == ".onnx"]
        sizes += [width * math.prod(each["shape"]) for part in weights for each in part.values()]
        return sum(sizes)

    def offloaded(self, profile: DiffusersProfile) -> bool:
        """True where the profile's layers lie in the host's memory. Raises ModelError."""
        import torch

        match profile.memory.offload, torch.device(self.device).type:
            case "none", _:
                return False
            case "auto", "cuda" if not profile.compile:
                return sum(self._parts(profile).values()) > RENDERERS_PART * self.memory()
            case "auto", _:
                return False
            case "host", "cpu":
                raise ModelError(
                    "renderer.memory.offload is `host`, and the device is the processor, whose "
                    "memory that is: `auto` offloads on a GPU alone"
                )
            case _:
                return True

    def _parts(self, profile: DiffusersProfile) -> Counter[str]:
        """Bytes of weights by part of the pipeline, and by the role of what is added to it."""
        size, parts = 4 if profile.dtype == "float32" else 2, Counter[str]()
        kinds = ((role.partition(":")[0], name) for role, name in profile.models().items())
        for role, reference in set(kinds):  # ControlNets of one model share it
            variant = profile.variant if role == "renderer" else ""
            model = self.folder(reference, role, variant)
            for file in loaded_files(model, role, variant):
                if file.suffix != ".safetensors":
                    continue
                for name, entry in read_header(file).items():
                    part = file.parent.name if role == "renderer" else role
                    if file == model:
                        part = part_of(name)
                    if role != "unet" and part == "unet" and profile.unet:
                        continue  # another one takes its place
                    small = profile.memory.weights == "float8" and part in DENOISERS
                    parts[part] += (1 if small else size) * math.prod(entry["shape"])
        return parts

    def memory(self) -> int:
        """Bytes of memory that the device has in all: the host's where it has none of its own."""
        import psutil
        import torch

        if torch.device(self.device).type != "cuda":
            return int(psutil.virtual_memory().total)
        return torch.cuda.mem_get_info(self.device)[1]

    def room(self, held: int) -> float:
        """Bytes for one more diffusion model beside `held` bytes of others."""
        import torch

        if torch.device(self.device).type != "cuda":
            return (self._limit or LIMIT) - held
        free, total = torch.cuda.mem_get_info(self.device)
        # what torch has reserved and does not use is free as well
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return min(free - WORKING * total, self._limit - held if self._limit else math.inf)

    def weights(self, kind: type[Weights], reference: str) -> Weights | None:
        """The folder of a reference, None for an empty one. Raises ModelError."""
        opened = partial(kind.open, reference, self._root, self._cache)
        folder: Weights | None = self._once((kind, reference), opened)
        return folder

    def controlnet(self, reference: str, profile: DiffusersProfile) -> Any:
        """A ControlNet for the profile's pipeline, on the device. Raises ModelError."""

        def load() -> Any:
            from pipeline.models.diffusion import load_controlnet

            folder = self.folder(reference, "control")
            base = self.folder(profile.model, "renderer", profile.variant)
            unet = self.folder(profile.unet, "unet") if profile.unet else None
            name = check_fit(folder, base, unet)
            return _loading(folder, lambda: load_controlnet(folder, name, profile.dtype)).to(
                self.device
            )

        return self._built((profile, "control", reference), load)

    def preview_decoder(self, profile: DiffusersProfile) -> Any:
        """The profile's preview decoder, None where it names none. Raises ModelError."""
        if not profile.previews:
            return None

        def load() -> Any:
            from pipeline.models.diffusion import load_preview_decoder

            folder = self.folder(profile.previews, "previews")
            return _loading(folder, lambda: load_preview_decoder(folder, profile)).to(self.device)

        return self._built((profile, "previews"), load)

    def language_model(self, profile: LocalWriterProfile) -> tuple[Any, Any]:
        """A causal language model and its tokenizer, which pads on the left. Raises ModelError."""

        def load() -> tuple[Any, Any]:
            import torch
            from transformers import AutoModelForCausalLM

            folder = self.folder(profile.model, "writer")
            dtype = getattr(torch, profile.dtype)
            return self._transformer(folder, AutoModelForCausalLM, "left", dtype=dtype)

        loaded: tuple[Any, Any] = self._built(profile, load)
        return loaded

    def clip(self, reference: str, role: str, dtype: Dtype = "float32") -> tuple[Any, Any, Any]:
        """An OpenCLIP model, or transformers' CLIP or SigLIP, its preprocessing and its tokenizer.
        Raises ModelError.
        """
        folder = self.folder(reference, role)

        def load() -> tuple[Any, Any, Any]:
            if not (folder / OPEN_CLIP_CONFIG).is_file():
                return load_transformers()
            import open_clip
            from open_clip.transform import MaybeToTensor
            from torch import float32
            from torchvision.transforms import Compose, ConvertImageDtype, PILToTensor

            name = f"local-dir:{folder.resolve()}"
            model, preprocess = open_clip.create_model_from_pretrained(
                name, precision=PRECISIONS[dtype], device=self.device
            )
            # in torch's default dtype the pixels would be another model's while that one is loaded
            floats = Compose([PILToTensor(), ConvertImageDtype(float32)])
            preprocess.transforms = [
                floats if isinstance(each, MaybeToTensor) else each
                for each in preprocess.transforms
            ]
            return model.eval(), preprocess, tokenizer_of_clip(folder)

        def load_transformers() -> tuple[Any, Any, Any]:
            import torch

            from pipeline.models.transformers_clip import load_towers

            model, preprocess, tokenizer = load_towers(folder, getattr(torch, dtype))
            return model.to(self.device).eval(), preprocess, tokenizer

        key = ("clip", folder, dtype)
        loaded: tuple[Any, Any, Any] = self._built(key, lambda: _loading(folder, load))
        return loaded

    def vision_language(self, reference: str, role: str, dtype: Dtype) -> tuple[Any, Any]:
        """A vision-language model of transformers and its processor. Raises ModelError."""
        folder = self.folder(reference, role)

        def load() -> tuple[Any, Any]:
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor

            model = load_whole(AutoModelForImageTextToText, folder, dtype=getattr(torch, dtype))
            processor = AutoProcessor.from_pretrained(folder, **LOCAL)
            check_tokenizer(processor.tokenizer, folder)
            if processor.tokenizer.pad_token is None:
                processor.tokenizer.pad_token = processor.tokenizer.eos_token
            return model.to(self.device).eval(), processor

        key = ("vision language", folder, dtype)
        loaded: tuple[Any, Any] = self._built(key, lambda: _loading(folder, load))
        return loaded

    def text_encoder(self, reference: str) -> tuple[Any, Any]:
        """A text encoder and its tokenizer. Raises ModelError."""

        def load() -> tuple[Any, Any]:
            from transformers import AutoModel

            folder = self.folder(reference, "embedding")
            return self._transformer(folder, AutoModel, "right", POOLER)

        loaded: tuple[Any, Any] = self._built(("text encoder", reference), load)
        return loaded

    def classifier(self, reference: str, dtype: Dtype = "float32") -> tuple[Any, Any]:
        """An image classifier, which makes logits of pixels, both arrays with an image in each row,
        and its preprocessing. Raises ModelError.
        """
        folder = self.folder(reference, "guard")

        def load() -> tuple[Any, Any]:
            import torch
            from transformers import AutoImageProcessor, AutoModelForImageClassification

            processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **LOCAL)
            if onnx_file(folder):
                threads = torch.get_num_threads()
                return OnnxClassifier(folder, self.device, threads), processor
            model = load_whole(AutoModelForImageClassification, folder, dtype=getattr(torch, dtype))
            model.to(self.device).eval()

            @torch.inference_mode()
            def logits(pixels: Any) -> Any:
                given = torch.from_numpy(pixels).to(model.device, model.dtype)
                return model(pixel_values=given).logits.float().cpu().numpy()

            return logits, processor

        loaded: tuple[Any, Any] = self._built(
            ("classifier", folder, dtype), lambda: _loading(folder, load)
        )
        return loaded

    def folder(self, reference: str, role: str, variant: str = "") -> Path:
        """The verified folder of a model. Raises ModelError."""
        return self._found(reference, role, variant)[0]

    def digest(self, reference: str, role: str, variant: str = "") -> str:
        """The digest of a model's files at its first use; a role may name a collection. Raises
        ModelError.
        """
        return self._found(reference, role, variant)[1]

    def _found(self, reference: str, role: str, variant: str) -> tuple[Path, str]:
        role = role.partition(":")[0]
        key = ("folder", reference, role, variant)

        def look() -> tuple[Path, str]:
            folder = resolve(reference, self._root, role, variant)
            verify(folder, role, variant)
            return folder, digest(folder, role, variant, self._cache)

        found: tuple[Path, str] = self._once(key, look)
        return found

    def _built(self, key: object, load: Callable[[], Any]) -> Any:
        """A model that `load` makes at its first use, while no other one runs: the libraries set
        torch's default dtype and patch its modules meanwhile, for all threads.
        """
        if (loaded := self._loaded.get(key)) is not None:
            return loaded
        with self.device_lock:  # before the own lock, as by a thread that runs a model
            return self._once(key, load)

    def _once(self, key: object, load: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._loaded:
                with suspended():
                    self._loaded[key] = load()
            return self._loaded[key]

    def _transformer(
        self, folder: Path, kind: Any, padding_side: str, *unread: str, **settings: Any
    ) -> tuple[Any, Any]:
        """A transformers model and its tokenizer, on the device; `unread` are the first letters of
        weights that it may lack.
        """
        from transformers import AutoTokenizer

        def load() -> tuple[Any, Any]:
            model = load_whole(kind, folder, *unread, **settings)
            tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=padding_side, **LOCAL)
            check_tokenizer(tokenizer, folder)
            return model, tokenizer

        model, tokenizer = _loading(folder, load)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return model.to(self.device).eval(), tokenizer


_HUB = threading.Lock()


def tokenizer_of_clip(folder: Path) -> Any:
    """The tokenizer of an OpenCLIP model, or of transformers' CLIP or SigLIP. Raises ModelError for
    one that knows no words.
    """
    if not (folder / OPEN_CLIP_CONFIG).is_file():
        from pipeline.models.transformers_clip import load_tokenizer

        return load_tokenizer(folder)
    import open_clip

    text = read_json(folder / OPEN_CLIP_CONFIG)["model_cfg"].get("text_cfg", {})
    # OpenCLIP's own tokenizer has none of transformers' settings
    settings = LOCAL if text.get("hf_tokenizer_name") else {}
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder.resolve()}", **settings)
    if settings:
        check_tokenizer(tokenizer.tokenizer, folder)
    return tokenizer


def _loading(folder: Path | str, load: Callable[[], Any]) -> Any:
    """The result of `load`, offline. Raises ModelError for every error of the libraries."""
    from huggingface_hub import constants
    from transformers.utils import logging

    # the libraries' progress bars would break up the command line's own
    cast(Any, logging).disable_progress_bar()
    with _HUB:
        # the libraries read this before each request; the environment only sets its first value
        before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
        try:
            return load()
        except ModelError:
            raise
        except Exception as error:
            kind = type(error).__name__
            raise ModelError(f"{folder} cannot be loaded: {kind}: {error}") from error
        finally:
            constants.HF_HUB_OFFLINE = before
