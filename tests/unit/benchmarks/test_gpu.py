"""The GPU benchmark at a tiny size: the models are the published ones, and all ways do one work."""

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu.architectures import ARCHITECTURES, Subject
from benchmarks.gpu.flops import counted
from pipeline.job import RenderRequest

pytestmark = pytest.mark.slow

CLOSE = 2 / 255
META, CPU = torch.device("meta"), torch.device("cpu")
PUBLISHED = {
    "sdxl": {"denoiser": 2_567_463_684, "decoder": 83_653_863, "sample": 6.76, "decode": 10.5},
    "flux": {"denoiser": 11_901_408_320, "decoder": 83_819_683, "sample": 74.4, "decode": 10.5},
}
WORDS = "--size tiny --side 64 --steps 3 --images 4 --batch 2 --dtype float32 --json"


@pytest.fixture(params=ARCHITECTURES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def subject(name: str) -> Subject:
    return ARCHITECTURES[name]("tiny", torch.float32, CPU)


def plan(**changes: Any) -> gpu.Plan:
    small = gpu.Plan(
        size="tiny",
        side=64,
        steps=4,
        images=3,
        batch=2,
        dtype="float32",
        compile=False,
        channels_last=False,
        quantize="none",
        ways=gpu.WAYS,
    )
    return replace(small, **changes)


def a_request(name: str, **changes: Any) -> RenderRequest:
    return gpu.request_of(name, plan(**changes))


def parameters(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_the_full_size_is_the_published_model_and_its_known_work(name: str) -> None:
    subject = ARCHITECTURES[name]("full", torch.bfloat16, META)
    work = counted(subject, a_request(name, side=1024, steps=20))
    known = PUBLISHED[name]
    assert parameters(subject.denoiser) == known["denoiser"]
    assert parameters(subject.pipe.vae) == known["decoder"]
    assert work.sample == pytest.approx(known["sample"], rel=0.005)
    assert work.decode == pytest.approx(known["decode"], rel=0.005)
    samples = {"sdxl": 40, "flux": 20}[name]
    assert work.image == pytest.approx(samples * work.sample + work.decode)


def test_all_ways_make_the_same_images(name: str, subject: Subject) -> None:
    asked = a_request(name)
    alone = gpu.pipeline_way(subject, 1)(asked)
    batched = gpu.pipeline_way(subject, 2)(asked)
    with gpu.engine_way(subject, 2) as (_, render):
        engine = render(asked)
    for one, other, third in zip(alone, batched, engine, strict=True):
        assert one.std() > 0.05
        assert np.abs(one - other).max() <= CLOSE
        assert np.abs(one - third).max() <= CLOSE
    assert np.abs(alone[0] - alone[1]).max() > CLOSE


def test_a_batch_that_does_not_fit_is_halved_and_named(subject: Subject, name: str) -> None:
    rows = {"sdxl": 6, "flux": 3}[name]

    def refuse(_model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]) > rows:
            raise torch.OutOfMemoryError("out of memory")

    subject.denoiser.register_forward_pre_hook(refuse, with_kwargs=True)
    figures = gpu.measure_ways(subject, a_request(name, images=8), 8)
    assert figures["naive"]["batch"] == 1
    assert figures["batched"]["batch"] == 2
    assert 1 < figures["engine"]["batch"] <= 2


def test_the_program_prints_figures_of_each_model_and_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", *WORDS.split()])
    gpu.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(report) == ["sdxl", "flux"]
    for figures in report.values():
        speed = {}
        for way in gpu.WAYS:
            speed[way] = figures[way]["pictures_per_s"]
            work = figures["tflop_of_image"] * speed[way]
            assert figures[way]["tflop_per_s"] == pytest.approx(work)
            assert work > 0
        assert figures["engine_vs_naive"] == pytest.approx(speed["engine"] / speed["naive"])
        assert figures["engine_vs_batched"] == pytest.approx(speed["engine"] / speed["batched"])


def test_only_mlperfs_own_work_is_compared_with_mlperf() -> None:
    ways = {
        way: {"pictures_per_s": speed} for way, speed in zip(gpu.WAYS, (1.0, 2.0, 4.8), strict=True)
    }
    same, h200 = plan(size="full", side=1024, steps=20), "NVIDIA H200"
    ratios = {"engine_vs_naive": 4.8, "engine_vs_batched": 2.4}
    assert gpu.compared("sdxl", same, ways, h200) == pytest.approx(ratios | {"vs_mlperf_h200": 2.0})
    h100 = gpu.compared("sdxl", same, ways, "NVIDIA H100 80GB HBM3")
    assert h100 == pytest.approx(ratios | {"vs_mlperf_h100": 4.8 / 2.26})
    assert gpu.compared("sdxl", same, ways, "NVIDIA L4") == pytest.approx(ratios)
    assert gpu.compared("flux", same, ways, h200) == pytest.approx(ratios)
    for other in ({"size": "tiny"}, {"side": 512}, {"steps": 4}):
        assert gpu.compared("sdxl", replace(same, **other), ways, h200) == pytest.approx(ratios)
    assert gpu.compared("sdxl", same, {"engine": ways["engine"]}, "NVIDIA L4") == {}
    assert gpu.compared("sdxl", same, {"naive": ways["naive"]}, h200) == {}


def test_the_full_size_without_a_gpu_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", "--models", "sdxl"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert "needs a CUDA device" in capsys.readouterr().err


def test_float8_without_compilation_or_torchao_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS.split(), "--quantize", "float8"]
    monkeypatch.setattr(gpu, "find_spec", lambda _name: None)
    for given, says in ((words, "slow without --compile"), ([*words, "--compile"], "pip install")):
        monkeypatch.setattr(sys, "argv", ["gpu", *given])
        with pytest.raises(SystemExit) as ended:
            gpu.main()
        assert ended.value.code == 2
        assert says in capsys.readouterr().err
