"""Image classifiers in ONNX files, which onnxruntime runs."""

import mmap
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ModelError
from pipeline.models.safetensors import read_json

PLACES = ("model.onnx", "onnx/model.onnx")
"""Where exports of transformers' models lie in their folders."""
ELSEWHERE = b"\x0a\x08location"
"""The field of a tensor that lies in another file: entry `location` of ONNX's `external_data`."""

Array = NDArray[np.float32]


class OnnxSettings(BaseModel):
    """The table `onnx` of a classifier's config.json. The defaults are what exports of
    transformers' models read and answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Literal["NCHW", "NHWC"] = "NCHW"
    channels: Literal["RGB", "BGR"] = "RGB"
    output: Literal["logits", "probabilities"] = "logits"


def onnx_file(folder: Path) -> Path | None:
    """The ONNX file in a model's folder; None without one, or where safetensors go before it."""
    if any(folder.glob("*.safetensors")):
        return None
    return next((folder / place for place in PLACES if (folder / place).is_file()), None)


def onnx_settings(folder: Path) -> OnnxSettings:
    """The settings of the ONNX file in a folder. Raises ModelError, also where onnxruntime is not
    installed, and for weights in other files, which no digest would cover.
    """
    config, file = folder / "config.json", onnx_file(folder)
    if find_spec("onnxruntime") is None:
        raise ModelError(f"{file} needs onnxruntime: pip install 'pressrun[onnx]'")
    assert file is not None
    with file.open("rb") as opened:
        if not file.stat().st_size:
            raise ModelError(f"{file} is empty; fetch it again")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(ELSEWHERE) >= 0:
                raise ModelError(f"{file} has its weights in other files: save it as one file")
    try:
        return OnnxSettings.model_validate(read_json(config).get("onnx", {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("onnx", *first["loc"])))
        raise ModelError(f"{config}: {where}: {first['msg']}") from error


class OnnxClassifier:
    """The logits of an ONNX file: on CUDA where onnxruntime has it, else on the processor. Raises
    ModelError.
    """

    def __init__(self, folder: Path, device: str, threads: int) -> None:
        import onnxruntime

        self._settings, file = onnx_settings(folder), onnx_file(folder)
        several = read_json(folder / "config.json").get("problem_type")
        self._several = several == "multi_label_classification"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
        known = onnxruntime.get_available_providers()
        providers = [name for name in (*wanted, "CPUExecutionProvider") if name in known]
        self._session: Any = onnxruntime.InferenceSession(file, options, providers=providers)
        given = [each.name for each in self._session.get_inputs()]
        if len(given) != 1:
            raise ModelError(f"{file} reads {', '.join(given)}, and a classifier one image")
        self._input, shape = given[0], self._session.get_inputs()[0].shape
        # some files are made for one image at a time
        self._alone = bool(shape) and shape[0] == 1

    def __call__(self, pixels: Array) -> Array:
        """[images, labels] of [images, 3, height, width], as the preprocessing makes them."""
        if self._settings.channels == "BGR":
            pixels = pixels[:, ::-1]
        if self._settings.layout == "NHWC":
            pixels = pixels.transpose(0, 2, 3, 1)
        calls = np.split(pixels, len(pixels)) if self._alone else [pixels]
        answers = [
            self._session.run(None, {self._input: np.ascontiguousarray(each, np.float32)})[0]
            for each in calls
        ]
        found: Array = np.concatenate(answers)
        if self._settings.output == "logits":
            return found
        with np.errstate(divide="ignore"):
            odds = np.log(found)
            return odds - np.log1p(-found) if self._several else odds
