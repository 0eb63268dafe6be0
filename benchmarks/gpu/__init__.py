"""The speed of SDXL and FLUX on a GPU, in three ways with the same settings, in one run.

- `naive`: diffusers' pipeline, called for one image after another;
- `batched`: diffusers' pipeline, called for a batch at a time;
- `engine`: all images handed to the engine at once, with as many places in its batch.

Weights are random (`benchmarks.gpu.architectures`), so nothing has to be fetched. Each way is
warmed up with a batch before it is timed, from the first noise to images in the processor's memory.
A batch that does not fit is halved; `batch` is the one that was used, the engine's as a mean of all
turns. `tflop_per_s` are the model's products and sums over that time; `vs_mlperf_h100` and `_h200`
compare the engine with MLPerf Inference 5.1's 2.26 images/s of SDXL on one H100 and 2.40 on one
H200 (offline, 1024², 20 steps with guidance, TensorRT with 8-bit floats), on such a card only.

`--quantize float8` multiplies by 8-bit floats where that is faster, with torchao.

`--size tiny` has the same classes with few channels, to try the program on any machine.
"""

import json
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from time import perf_counter
from typing import Any, Literal

import torch

from benchmarks.common import arguments, show
from benchmarks.gpu.architectures import ARCHITECTURES, Size, Subject
from benchmarks.gpu.flops import counted
from pipeline.job import ImageArray, RenderRequest
from pipeline.models.diffusion import tune
from pipeline.models.faults import free_memory, out_of_memory
from pipeline.rendering.calls import call_arguments
from pipeline.rendering.engine import Engine, EngineStats

MLPERF = {"H100": 2.26, "H200": 2.40}
GUIDANCE = {"sdxl": 8.0, "flux": 3.5}
WARM_UP_STEPS = 2

WAYS = ("naive", "batched", "engine")
SLOWER_IN_FLOAT8 = (
    *("ff.net.2", "attn1.to_out.0", "attn2.to_out.0"),
    *("attn2.to_k", "attn2.to_v"),
)
"""Layers that gain less than it costs to quantize their input: no norm comes before them, or the
input is the text's few tokens.
"""

Way = Callable[[RenderRequest], list[ImageArray]]


@dataclass(frozen=True)
class Plan:
    """The size of the work, and how it is done."""

    size: Size
    side: int
    steps: int
    images: int
    batch: int
    dtype: str
    compile: bool
    channels_last: bool
    quantize: Literal["none", "float8"]
    ways: Sequence[str]

    @property
    def is_mlperfs(self) -> bool:
        """True if the work is that of MLPerf's benchmark."""
        return (self.size, self.side, self.steps) == ("full", 1024, 20)


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    given = _given(parser)
    models, as_json = given.pop("models"), given.pop("json")
    plan = Plan(**given)
    if plan.size == "full" and not torch.cuda.is_available():
        parser.error("--size full needs a CUDA device, and there is none; --size tiny needs none")
    if plan.quantize == "float8":
        if not plan.compile:
            parser.error("--quantize float8 is slow without --compile")
        if not find_spec("torchao"):
            parser.error("--quantize float8 needs torchao: pip install 'pressrun[float8]'")
    report: dict[str, Any] = {}
    for name in models:
        report[name] = measure(name, plan)
        _show(name, report[name])
        free_memory()
    if as_json:
        print(json.dumps(report))


def _given(parser: ArgumentParser) -> dict[str, Any]:
    parser.add_argument("--models", nargs="+", choices=ARCHITECTURES, default=[*ARCHITECTURES])
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=32, help="of each way")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--compile", action="store_true", help="the models' repeated blocks")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--quantize", choices=("none", "float8"), default="none")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    return vars(parser.parse_args())


def measure(name: str, plan: Plan) -> dict[str, Any]:
    """The figures of a model: settings, TFLOP, those of each way, and the ratios between them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, plan.dtype)
    request = request_of(name, plan)
    work = counted(ARCHITECTURES[name](plan.size, dtype, torch.device("meta")), request)
    subject = ARCHITECTURES[name](plan.size, dtype, device)
    tune(subject.pipe, compiled=plan.compile, channels_last=plan.channels_last)
    if plan.quantize == "float8":
        quantize_float8(subject.denoiser)
    ways = measure_ways(subject, request, plan.batch, plan.ways, compiled=plan.compile)
    for figures in ways.values():
        figures["tflop_per_s"] = figures["pictures_per_s"] * work.image
    return {
        "device": _name(device),
        "torch": torch.__version__,
        **asdict(plan),
        **{f"tflop_of_{part}": tflop for part, tflop in work._asdict().items()},
        **ways,
        **compared(name, plan, ways, _name(device)),
    }


def compared(
    name: str, plan: Plan, ways: dict[str, dict[str, float]], card: str
) -> dict[str, float]:
    """The engine's speed over that of the other ways, and over MLPerf's on such a card."""
    speed = {way: figures["pictures_per_s"] for way, figures in ways.items()}
    if "engine" not in speed:
        return {}
    ratios = {f"engine_vs_{way}": speed["engine"] / speed[way] for way in speed if way != "engine"}
    if name == "sdxl" and plan.is_mlperfs:
        for kind, bar in MLPERF.items():
            if kind in card:
                ratios[f"vs_mlperf_{kind.lower()}"] = speed["engine"] / bar
    return ratios


def quantize_float8(denoiser: Any) -> None:
    """Let a denoiser's blocks multiply 8-bit floats, with a scale for each row of what goes in and
    of the weights, both of the moment (https://arxiv.org/abs/2209.05433).
    """
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

    def pays(module: torch.nn.Module, name: str) -> bool:
        in_block = "transformer_blocks" in name and "norm" not in name
        linear = isinstance(module, torch.nn.Linear)
        return linear and in_block and not name.endswith(SLOWER_IN_FLOAT8)

    # torchao's own settings for the compiler search for minutes, and change float32's products
    config = Float8DynamicActivationFloat8WeightConfig(
        granularity=PerRow(), set_inductor_config=False
    )
    quantize_(denoiser, config, pays)


def measure_ways(
    subject: Subject,
    request: RenderRequest,
    batch: int,
    ways: Sequence[str] = WAYS,
    *,
    compiled: bool = False,
) -> dict[str, dict[str, float]]:
    """The batch, seconds and images per second of each way."""
    figures = {
        "naive": lambda: _pipeline_figures(subject, request, 1),
        "batched": lambda: _pipeline_figures(subject, request, batch),
        "engine": lambda: _engine_figures(subject, request, batch, compiled),
    }
    return {way: figures[way]() for way in ways}


def request_of(name: str, plan: Plan) -> RenderRequest:
    """All images of a model, one a seed."""
    return RenderRequest(
        prompt="the text of all images",
        negative="",
        width=plan.side,
        height=plan.side,
        steps=plan.steps,
        guidance=GUIDANCE[name],
        seeds=tuple(range(plan.images)),
    )


def pipeline_way(subject: Subject, batch: int) -> Way:
    """Diffusers' pipeline, so many images in a call."""

    def render(request: RenderRequest) -> list[ImageArray]:
        calls = range(0, len(request.seeds), batch)
        return [
            image
            for first in calls
            for image in _call(subject, request, request.seeds[first : first + batch])
        ]

    return render


@contextmanager
def engine_way(
    subject: Subject, batch: int, *, compiled: bool = False
) -> Iterator[tuple[Engine, Way]]:
    """The engine, and all images handed to it at once."""
    device_lock = threading.Lock()
    engine = Engine(subject.family, limit=batch, device_lock=device_lock, fixed_sizes=compiled)

    def render(request: RenderRequest) -> list[ImageArray]:
        samples = [engine.begin(request, seed) for seed in request.seeds]
        futures = [engine.submit(sample, sample.steps) for sample in samples]
        return [future.result() for future in futures]

    try:
        yield engine, render
    finally:
        engine.close()


def _call(subject: Subject, request: RenderRequest, seeds: tuple[int, ...]) -> list[ImageArray]:
    arguments = call_arguments(subject.pipe, [request])
    del arguments["prompt"]  # encoded beforehand
    images: list[ImageArray] = subject.pipe(
        prompt_embeds=subject.text["text"].repeat(len(seeds), 1, 1),
        pooled_prompt_embeds=subject.text["pooled"].repeat(len(seeds), 1),
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        **arguments,
    ).images
    return list(images)


def _pipeline_figures(subject: Subject, request: RenderRequest, batch: int) -> dict[str, float]:
    """The figures of the largest halving of the batch that fits the device's memory."""
    while not _fits(pipeline_way(subject, batch), request, batch):
        free_memory()
        batch //= 2
    return {"batch": float(batch), **_timed(pipeline_way(subject, batch), request)}


def _fits(way: Way, request: RenderRequest, batch: int) -> bool:
    """Warm up with a batch; says whether the memory sufficed, and raises if one is too many."""
    try:
        _warm_up(way, request, batch)
    except Exception as error:
        if batch == 1 or not out_of_memory(error):
            raise
        return False
    return True


def _engine_figures(
    subject: Subject, request: RenderRequest, batch: int, compiled: bool
) -> dict[str, float]:
    with engine_way(subject, batch, compiled=compiled) as (engine, way):
        _warm_up(way, request, batch)
        engine.stats = EngineStats()
        figures = _timed(way, request)
        return {"batch": engine.stats.used / engine.stats.steps, **figures}


def _warm_up(way: Way, request: RenderRequest, batch: int) -> None:
    # what was compiled for another way's shapes must not use up what the compiler keeps
    torch.compiler.reset()
    way(request.model_copy(update={"steps": WARM_UP_STEPS, "seeds": request.seeds[:batch]}))


def _timed(way: Way, request: RenderRequest) -> dict[str, float]:
    _wait_for_device()
    begun = perf_counter()
    way(request)
    _wait_for_device()
    seconds = perf_counter() - begun
    return {"seconds": seconds, "pictures_per_s": len(request.seeds) / seconds}


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _show(name: str, report: dict[str, Any]) -> None:
    ways = {way: figures for way, figures in report.items() if isinstance(figures, dict)}
    show(name, {what: figure for what, figure in report.items() if what not in ways})
    for way, figures in ways.items():
        show(f"{name}, {way}", figures)
