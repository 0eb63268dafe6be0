"""Loads each model once per process: local files, safetensors, no code from outside."""

import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from pipeline.errors import ModelError
from pipeline.models.files import digest, resolve, verify
from pipeline.models.turn import Turn
from pipeline.pulse import patient
from pipeline.settings import Dtype, RendererProfile, WriterProfile

PRECISIONS: dict[Dtype, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class Models:
    """The models of this process. `turn` is held by whoever runs one on the device.

    What is loaded is shared by all who ask for it with equal settings; loading blocks them.
    """

    def __init__(self, root: Path, device: str = "auto") -> None:
        self.turn = Turn()
        self.digests: dict[str, str] = {}
        self._root, self._asked = root, device
        self._loaded: dict[object, Any] = {}
        self._lock = threading.RLock()

    @cached_property
    def device(self) -> str:
        """The torch device asked for; `auto` is CUDA, then Apple's Metal, then the processor."""
        import torch

        if self._asked != "auto":
            return self._asked
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"

    def diffusion(self, profile: RendererProfile) -> Any:
        """The diffusers pipeline of a profile, on the device. Raises ModelError."""
        return self._once(profile, lambda: self._diffusion(profile))

    def preview_decoder(self, profile: RendererProfile) -> Any:
        """The profile's small decoder, None where it names none. Raises ModelError."""
        if not profile.previews:
            return None
        return self._once((profile, "previews"), lambda: self._preview_decoder(profile))

    def language_model(self, profile: WriterProfile) -> tuple[Any, Any]:
        """A causal language model and its tokenizer, which pads on the left. Raises ModelError."""
        loaded: tuple[Any, Any] = self._once(profile, lambda: self._language_model(profile))
        return loaded

    def clip(self, reference: str, role: str, dtype: Dtype = "float32") -> tuple[Any, Any, Any]:
        """An OpenCLIP model, its preprocessing and its tokenizer. Raises ModelError."""
        folder = self.folder(reference, role)
        key = ("clip", folder, dtype)
        loaded: tuple[Any, Any, Any] = self._once(key, lambda: self._clip(folder, dtype))
        return loaded

    def folder(self, reference: str, role: str) -> Path:
        """The verified folder of a model; its digest is noted under the role. Raises ModelError."""
        folder: Path = self._once((reference, role), lambda: self._folder(reference, role))
        return folder

    def _folder(self, reference: str, role: str) -> Path:
        folder = resolve(reference, self._root, role)
        verify(folder, role)
        self.digests[role] = digest(folder)
        return folder

    def _once(self, key: object, load: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._loaded:
                with patient():
                    self._loaded[key] = load()
            return self._loaded[key]

    def _diffusion(self, profile: RendererProfile) -> Any:
        from pipeline.models.diffusion import load_adapter, load_pipeline, tune

        folder = self.folder(profile.model, "renderer")
        unet = self.folder(profile.unet, "unet") if profile.unet else None
        pipe = _loading(folder, lambda: load_pipeline(folder, unet, profile)).to(self.device)
        if profile.image_adapter:
            adapter = self.folder(profile.image_adapter, "image_adapter")
            _loading(adapter, lambda: load_adapter(pipe, adapter))
        tune(pipe, compiled=profile.compile, channels_last=profile.channels_last)
        return pipe

    def _preview_decoder(self, profile: RendererProfile) -> Any:
        from pipeline.models.diffusion import load_preview_decoder

        folder = self.folder(profile.previews, "previews")
        return _loading(folder, lambda: load_preview_decoder(folder, profile)).to(self.device)

    def _language_model(self, profile: WriterProfile) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = self.folder(profile.model, "writer")
        model = _loading(
            folder,
            lambda: AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, profile.dtype),
                use_safetensors=True,
                local_files_only=True,
            ),
        )
        tokenizer = _loading(
            folder,
            lambda: AutoTokenizer.from_pretrained(
                folder, padding_side="left", local_files_only=True
            ),
        )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return model.to(self.device).eval(), tokenizer

    def _clip(self, folder: Path, dtype: Dtype) -> tuple[Any, Any, Any]:
        import open_clip

        name = f"local-dir:{folder.resolve()}"
        model, preprocess = _loading(
            folder,
            lambda: open_clip.create_model_from_pretrained(
                name,
                precision=PRECISIONS[dtype],
                device=self.device,
            ),
        )
        tokenizer = _loading(folder, lambda: open_clip.get_tokenizer(name))
        return model.eval(), preprocess, tokenizer


def _hide_progress() -> None:
    """The pipelines' and tokenizers' progress bars would break up the command line's own."""
    from transformers.utils import logging

    cast(Any, logging).disable_progress_bar()


def _loading(folder: Path, load: Callable[[], Any]) -> Any:
    """What `load` returns; whatever goes wrong inside the libraries is the model's fault."""
    _hide_progress()
    try:
        return load()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{folder} cannot be loaded: {type(error).__name__}: {error}") from error
