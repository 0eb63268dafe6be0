"""The arithmetic of an image, counted from the shapes of every product in the model."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.architectures import Subject
from pipeline.job import RenderRequest


class Work(NamedTuple):
    """TFLOP: of the denoiser for one sample, of the decoder for one image, and of an image with
    all its steps. A product and a sum are two.
    """

    sample: float
    decode: float
    image: float


def counted(subject: Subject, request: RenderRequest) -> Work:
    """The operations of one image of the order, on the device `meta`, which calculates nothing."""
    family = subject.family
    x = family.noise(request, torch.Generator())[None]
    timestep = torch.ones(1, device=family.device)
    sample = _tflop(lambda: family.predict(x, timestep, [subject.text], [request]))
    decode = _tflop(lambda: family.decode(x, request))
    samples = request.steps * (2 if family.guides(request) else 1)
    return Work(sample, decode, samples * sample + decode)


@torch.inference_mode()
def _tflop(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / 1e12
