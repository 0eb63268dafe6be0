"""Who renders what on this device."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, FluxPipeline
from torch._dynamo.utils import counters

from pipeline.cancellation import Cancelled, cancellable
from pipeline.errors import JobError, ModelError
from pipeline.job import (
    Brief,
    Candidate,
    Context,
    ImageArray,
    JudgeRequest,
    LoadedImage,
    RenderRequest,
    Score,
)
from pipeline.judging import contest
from pipeline.models import Models
from pipeline.models.diffusion import tune
from pipeline.profile import DiffusersProfile
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer, local_renderer
from pipeline.run import hold_contest
from pipeline.telemetry import metered
from tests.harness import small_models
from tests.harness.jobs import make_job
from tests.harness.rendered import Rendered

IMAGE = LoadedImage("a" * 64, np.ones((32, 32, 3), np.float32))


def a_request(**changes: object) -> RenderRequest:
    settings = {"prompt": "a", "negative": "", "width": 32, "height": 32, "steps": 2}
    return RenderRequest.model_validate(settings | {"guidance": 3.0, "seeds": (1,)} | changes)


class HalfWay:
    """A pruner that keeps all."""

    points = (0.5,)

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        return range(len(previews))


@pytest.mark.parametrize(
    ("scheduler", "renderer"),
    [("KDPM2DiscreteScheduler", DiffusersRenderer), ("EulerDiscreteScheduler", EngineRenderer)],
)
def test_the_reference_serves_the_schedulers_that_the_engine_does_not(
    tmp_path: Path, scheduler: str, renderer: type
) -> None:
    small_models.save("sd", tmp_path / "model")
    profile = DiffusersProfile(model="model", scheduler=scheduler)
    found = local_renderer(Models(tmp_path, "cpu"), profile)
    assert type(found) is renderer
    with metered() as meter:
        assert found.render(a_request(), HalfWay())[0].shape == (32, 32, 3)
    told = [
        "the race dropped no candidate: diffusers' own pipeline renders each to its end",
        f"diffusers' own pipeline renders this: the engine lacks the scheduler {scheduler}",
    ]
    assert meter.notices == (told if renderer is DiffusersRenderer else [])


def test_a_scheduler_that_cannot_be_shifted_fails_each_job_of_a_model_that_is(
    tmp_path: Path,
) -> None:
    small_models.save("z-image", tmp_path / "model")
    profile = DiffusersProfile(model="model", scheduler="EulerDiscreteScheduler")
    renderer = local_renderer(Models(tmp_path, "cpu"), profile)
    assert isinstance(renderer, DiffusersRenderer)
    with pytest.raises(JobError, match="EulerDiscreteScheduler"):
        renderer.render(a_request())


def test_noise_that_a_pipeline_does_not_seed_is_the_rows_own_all_the_same(tmp_path: Path) -> None:
    """SD 3's pipeline gives its generator to no scheduler."""
    small_models.save("sd3", tmp_path / "model")
    settings = {"stochastic_sampling": True}
    models = Models(tmp_path, "cpu")
    profile = DiffusersProfile(model="model", scheduler_settings=settings)
    reference = DiffusersRenderer(models, profile)
    asked = a_request(seeds=(1, 2), steps=3)
    made = reference.render(asked)
    (alone,) = reference.render(a_request(seeds=(2,), steps=3))
    stepped = EngineRenderer(models, profile, reference).render(asked)
    for one, other in ((made[1], alone), (made[0], stepped[0]), (made[1], stepped[1])):
        assert other is not None
        assert np.abs(one - other).max() <= 2 / 255


def test_a_unet_with_guidance_as_its_input_reads_no_negative_prompt(tmp_path: Path) -> None:
    small_models.save("sd-lcm", tmp_path / "model")
    profile = DiffusersProfile(model="model", scheduler="LCMScheduler")
    renderer = local_renderer(Models(tmp_path, "cpu"), profile)
    with metered() as meter:
        (told,) = renderer.render(a_request(negative="blurred"))
    assert meter.notices == [
        "the negative prompt has no effect with this model at guidance 3",
        "diffusers' own pipeline renders this: the engine lacks a UNet with its guidance built in",
    ]
    (plain,), (weaker,) = renderer.render(a_request()), renderer.render(a_request(guidance=1.5))
    assert told is not None
    assert plain is not None
    assert weaker is not None
    assert np.array_equal(told, plain)
    assert not np.array_equal(plain, weaker)


def test_the_reference_serves_the_orders_that_the_engine_does_not(tmp_path: Path) -> None:
    """FLUX with a negative prompt has guidance of another kind."""
    small_models.save("flux-dev", tmp_path / "model")
    models, profile = Models(tmp_path, "cpu"), DiffusersProfile(model="model")
    reference = DiffusersRenderer(models, profile)
    engine = EngineRenderer(models, profile, reference)
    asked = a_request(negative="blurred")
    with metered() as meter:
        assert np.array_equal(engine.render(asked)[0], reference.render(asked)[0])
    assert meter.renderer == "diffusers"
    assert meter.notices == [
        "diffusers' own pipeline renders this: the engine lacks a negative prompt for FLUX"
    ]
    assert np.abs(engine.render(a_request())[0] - engine.render(asked)[0]).max() > 0


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux", "z-image"])
def test_previews_come_from_the_profiles_small_decoder(tmp_path: Path, family: str) -> None:
    small_models.save(family, tmp_path / "model")
    small_models.save_preview_decoder(family, tmp_path / "small")
    profile = DiffusersProfile(model="model", previews="small")
    models = Models(tmp_path, "cpu")
    engine = EngineRenderer(models, profile, DiffusersRenderer(models, profile)).engine
    sample = engine.begin(a_request(), 1)
    seen = engine.submit(sample, 1).result(60)
    assert sample.x0 is not None
    estimate = sample.x0[None]
    if family == "flux":
        estimate = FluxPipeline._unpack_latents(estimate, 32, 32, 2)
    decoder = AutoencoderTiny.from_pretrained(tmp_path / "small")
    with torch.inference_mode():
        wanted = decoder.decode(estimate).sample[0].permute(1, 2, 0) / 2 + 0.5
    assert np.abs(seen - wanted.clamp(0, 1).numpy()).max() < 1e-5
    finished = engine.submit(sample, 2).result(60)
    plain = DiffusersProfile(model="model")
    (full,) = DiffusersRenderer(models, plain).render(a_request())
    assert np.abs(finished - full).max() <= 2 / 255


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("flux2", {"negative": "blurred"}, "takes no negative_prompt"),
        ("flux2-klein", {"negative": "blurred"}, "takes no negative_prompt"),
        ("flux2-klein-distilled", {}, "takes no guidance"),
        ("flux2", {"image": IMAGE, "strength": 0.5}, "cannot begin from an image"),
        ("flux2-klein", {"image": IMAGE, "mask": IMAGE}, "cannot paint a part of an image"),
    ],
)
def test_what_a_flux2_does_not_take_is_the_jobs_error(
    family: str, changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    small_models.save(family, tmp_path / "model")
    models, profile = Models(tmp_path, "cpu"), DiffusersProfile(model="model")
    renderer = local_renderer(models, profile)
    assert isinstance(renderer, EngineRenderer)
    with pytest.raises(JobError, match=f"the model's Flux2.*Pipeline {said}"):
        renderer.render(a_request(**changes))
    with metered() as meter:
        renderer.render(a_request(guidance=1.0))
    assert meter.renderer == "engine"


def test_qwen_image_takes_no_small_decoder_and_weights_in_any_layout(tmp_path: Path) -> None:
    """Its decoder is a video's, with an axis more."""
    small_models.save("qwen-image", tmp_path / "model")
    small_models.save_preview_decoder("sd3", tmp_path / "small")
    models, profile = Models(tmp_path, "cpu"), DiffusersProfile(model="model")
    with pytest.raises(ModelError, match=r"let renderer\.previews be empty"):
        local_renderer(models, profile.model_copy(update={"previews": "small"}))
    last = local_renderer(models, profile.model_copy(update={"channels_last": True}))
    wanted, found = local_renderer(models, profile).render(a_request()), last.render(a_request())
    assert found[0] is not None
    assert np.abs(found[0] - wanted[0]).max() <= 2 / 255


@pytest.mark.slow
@pytest.mark.parametrize(("family", "backend"), [("flux", "aot_eager"), ("qwen-image", "eager")])
def test_a_compiled_model_renders_the_same_and_compiles_nothing_in_the_middle(
    family: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # graphs are made for the same shapes; their C++ would take minutes, and each backend has them
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    small_models.save(family, tmp_path / "model")
    models = Models(tmp_path, "cpu")
    plain = DiffusersProfile(model="model", batch=2)
    tuned = plain.model_copy(update={"compile": True, "channels_last": True})
    fast = local_renderer(models, tuned)
    before = counters["stats"]["unique_graphs"]
    fast.render(a_request(prompt="a star"))
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > before
    longer = a_request(prompt="a blue star", seeds=(1, 2, 3), steps=5)
    images = fast.render(longer)
    assert counters["stats"]["unique_graphs"] == graphs
    wanted = local_renderer(models, plain).render(longer)
    for image, other in zip(images, wanted, strict=True):
        assert image is not None
        assert other is not None
        assert np.abs(image - other).max() <= 2 / 255


def test_a_compiled_model_meets_any_number_of_shapes_in_any_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    pipe = small_models.made("sd")
    tune(pipe, compiled=True, channels_last=False)

    def graphs_after(size: int) -> int:
        pipe.vae.decode(torch.zeros(size, 4, 2, 2))
        return int(counters["stats"]["unique_graphs"])

    with ThreadPoolExecutor(1) as pool:
        met = [pool.submit(graphs_after, size).result() for size in range(1, 5)]
    assert len(set(met)) == len(met)


def test_guidance_ends_where_the_profile_says(tmp_path: Path) -> None:
    small_models.save("sd", tmp_path / "model")
    models = Models(tmp_path, "cpu")
    whole, none = (
        local_renderer(models, DiffusersProfile(model="model", guided_until=part))
        for part in (1.0, 0.0)
    )
    assert np.array_equal(none.render(a_request())[0], whole.render(a_request(guidance=1.0))[0])
    assert not np.array_equal(
        whole.render(a_request())[0], whole.render(a_request(guidance=1.0))[0]
    )


def test_an_order_that_nobody_wants_any_more_leaves_the_batch(tmp_path: Path) -> None:
    small_models.save("sd", tmp_path / "model")
    models = Models(tmp_path, "cpu")
    renderer = local_renderer(models, DiffusersProfile(model="model"))
    renderer.render(a_request())
    cancelled = threading.Event()
    threading.Timer(0.5, cancelled.set).start()
    begun = time.monotonic()
    with cancellable(cancelled), pytest.raises(Cancelled):
        renderer.render(a_request(steps=500, seeds=tuple(range(8))))
    seconds = time.monotonic() - begun
    assert isinstance(renderer, EngineRenderer)
    steps = renderer.engine.stats.steps
    assert steps < 400, f"it was rendered to its end in {seconds:.1f} s"
    renderer.render(a_request())
    assert renderer.engine.stats.steps <= steps + 4, "the engine went on with it"


class Bright:
    """A judge whose score is the brightness."""

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> list[Score]:
        means = [float(image.mean()) for image in images]
        return [Score(raw=mean, calibrated=mean) for mean in means]


def test_the_best_drafts_are_rendered_again_from_the_same_noise(tmp_path: Path) -> None:
    small_models.save("sd", tmp_path / "model")
    models, profile = Models(tmp_path, "cpu"), DiffusersProfile(model="model")
    renderer = EngineRenderer(models, profile, DiffusersRenderer(models, profile))
    again = {"candidates": 6, "width": 32, "height": 32, "steps": 9, "guidance": 3.0}
    rule = {"contest": "draft", "draft_steps": 3, "survivors": 2}

    def held(**fields: object) -> tuple[list[Candidate], int]:
        before = renderer.engine.stats.rows
        ports = Rendered((), Bright()).ports(renderer)
        brief = Brief(text="a", prompt="a")
        candidates = hold_contest(make_job(**again | fields), Context(), brief, ports)
        return candidates, renderer.engine.stats.rows - before

    drafted, rows = held(**rule)
    whole, all_rows = held()
    short, _ = held(steps=3)
    assert (rows, all_rows) == (2 * (6 * 3 + 2 * 9), 2 * 6 * 9), "guidance doubles each"
    assert [each.previews[0].raw for each in drafted] == [
        pytest.approx(each.score.raw, abs=1e-5) for each in short if each.score
    ]
    kept = [each.index for each in drafted if each.image is not None]
    assert kept == contest.best(2, [each.previews[0] for each in drafted])
    for index in kept:
        one, other = drafted[index].image, whole[index].image
        assert one is not None
        assert other is not None
        assert np.abs(one - other).max() <= 2 / 255
