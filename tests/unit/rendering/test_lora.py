"""LoRAs of single rows: in mixed batches as in diffusers' own pipeline, and without a trace."""

import hashlib
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from pipeline.errors import JobError
from pipeline.job import ImageArray, Lora, RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile, Profile
from pipeline.rendering.calls import call_arguments
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer, local_renderer
from tests.harness import small_models

SDXL_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    "timestep_spacing": "leading",
}  # fmt: skip
"""As in stable-diffusion-xl-base-1.0."""
CLOSE, SEEN = 2 / 255, 2.5 / 255
PROFILE = DiffusersProfile(model="model", loras="loras")
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
OTHERS = {
    "sd": ["conv1", "conv2"],
    "sdxl": ["conv1", "conv2"],
    "sd3": ["proj_out"],
    "flux": ["proj_out"],
    "flux2-klein": ["x_embedder", "to_qkv_mlp_proj", "linear_in"],
    "qwen-image": ["img_in", "txt_mod.1"],
    "z-image": ["w2", "cap_embedder.1"],
}
Weights = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Workshop:
    """A model, its LoRAs, and both renderers over them. `words` changes the text encoder too,
    `convolved` the convolutions.
    """

    root: Path
    reference: DiffusersRenderer
    engine: EngineRenderer
    negative: str = "blue"

    def request(self, weights: Weights, **changes: object) -> RenderRequest:
        loras = [
            Lora(
                name=name, weight=weight, digest=digest(self.root / "loras" / f"{name}.safetensors")
            )
            for name, weight in weights
        ]
        asked = {
            "prompt": "a red circle", "negative": self.negative, "width": 32, "height": 32,
            "steps": 4, "guidance": 3.0, "seeds": (7,), "loras": loras,
        }  # fmt: skip
        return RenderRequest.model_validate(asked | changes)

    def file(self, name: str) -> Path:
        return self.root / "loras" / f"{name}.safetensors"

    def by_diffusers(self, weights: Weights) -> ImageArray:
        """The image of a pipeline of its own, with PEFT's adapters."""
        pipe: Any = diffusers.DiffusionPipeline.from_pretrained(self.root / "model")
        pipe.set_progress_bar_config(disable=True)
        if weights:
            for name, _ in weights:
                pipe.load_lora_weights(
                    self.root / "loras" / f"{name}.safetensors", adapter_name=name
                )
            pipe.set_adapters([name for name, _ in weights], [weight for _, weight in weights])
        arguments = call_arguments(pipe, [self.request(weights)])
        image: ImageArray = pipe(generator=torch.Generator().manual_seed(7), **arguments).images[0]
        return image


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def save_lora(root: Path, name: str, seed: int, targets: list[str], words: bool = False) -> None:
    """A LoRA with random weights, trained by nobody, as diffusers saves it."""
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(root / "model")
    torch.manual_seed(seed)
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    models = {part: (getattr(pipe, part), targets)}
    if words:
        models["text_encoder"] = pipe.text_encoder, ["q_proj", "v_proj"]
    layers = {}
    for which, (model, names) in models.items():
        settings = {"init_lora_weights": False, "target_modules": names}
        model.add_adapter(LoraConfig(r=2 + seed, lora_alpha=8, **settings))
        layers[f"{which}_lora_layers"] = get_peft_model_state_dict(model)
    # the scale is in the file's metadata alone
    layers |= _collate_lora_metadata({which: model for which, (model, _) in models.items()})
    pipe.save_lora_weights(root / "loras", weight_name=f"{name}.safetensors", **layers)


@pytest.fixture(scope="module", params=OTHERS)
def workshop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    root = tmp_path_factory.mktemp(request.param)
    small_models.save(request.param, root / "model")
    save_lora(root, "plain", 0, ATTENTION)
    # no LoRA of the newer ones changes the text encoder
    save_lora(root, "words", 1, ATTENTION, words=request.param in ("sd", "sdxl", "sd3", "flux"))
    save_lora(root, "convolved", 2, [*ATTENTION, *OTHERS[request.param]])
    models = Models(root, "cpu")
    reference = DiffusersRenderer(models, PROFILE)
    engine = EngineRenderer(models, PROFILE, reference)
    # FLUX.2 takes no negative prompt
    return Workshop(root, reference, engine, "" if request.param == "flux2-klein" else "blue")


CASES: list[Weights] = [
    [],
    [("plain", 3.0)],
    [("words", 0.7)],
    [("convolved", -0.6)],
    [("plain", 0.5), ("words", 0.5), ("convolved", 0.3)],
]


@pytest.mark.slow
def test_rows_of_any_loras_share_a_batch_and_are_diffusers_own(workshop: Workshop) -> None:
    asked = [workshop.request(weights) for weights in CASES]
    others = [workshop.request(CASES[1], seeds=(9, 10), steps=2, guidance=1.0)]
    with ThreadPoolExecutor(8) as pool:
        mixed = list(pool.map(workshop.engine.render, [*asked, *others]))
    wanted = [workshop.by_diffusers(weights) for weights in CASES]
    for request, images, own in zip(asked, mixed, wanted, strict=False):
        assert images[0] is not None
        assert np.abs(images[0] - own).max() <= CLOSE
        (alone,) = workshop.reference.render(request)
        assert np.abs(alone - own).max() <= CLOSE
    assert all(np.abs(each - wanted[0]).max() > SEEN for each in wanted[1:])


def test_a_lora_leaves_no_trace(workshop: Workshop) -> None:
    for renderer in (workshop.engine, workshop.reference):
        plain, shown, again, nothing = (
            renderer.render(workshop.request(weights))[0]
            for weights in ([], CASES[4], [], [("plain", 0.0)])
        )
        assert np.array_equal(plain, again)
        assert np.array_equal(plain, nothing)
        assert not np.array_equal(plain, shown)


@pytest.fixture
def sd(tmp_path: Path) -> Workshop:
    small_models.save("sd", tmp_path / "model")
    save_lora(tmp_path, "plain", 0, ATTENTION)
    models = Models(tmp_path, "cpu")
    reference = DiffusersRenderer(models, PROFILE)
    return Workshop(tmp_path, reference, EngineRenderer(models, PROFILE, reference))


def test_a_file_by_kohyas_scripts_is_the_same_lora(sd: Workshop) -> None:
    tensors = {}
    for key, each in load_file(sd.file("plain")).items():
        layer, _, part = key.removeprefix("unet.").rpartition(".lora_")
        name = f"lora_unet_{layer.replace('.', '_')}"
        tensors[f"{name}.lora_{'down' if part[0] == 'A' else 'up'}.weight"] = each
        tensors[f"{name}.alpha"] = torch.tensor(8.0)
    save_file(tensors, sd.file("kohya"))
    found, wanted = (sd.engine.render(sd.request([(name, 1.0)]))[0] for name in ("kohya", "plain"))
    assert np.array_equal(found, wanted)


def test_a_lora_that_cannot_be_used_fails_its_row_alone(sd: Workshop) -> None:
    state, good = load_file(sd.file("plain")), sd.request([("plain", 1.0)])
    first = next(iter(state))
    broken = {
        "nan": (state | {first: torch.full_like(state[first], torch.nan)}, "not finite"),
        "wide": ({key: each.repeat(2, 2) for key, each in state.items()}, "does not fit the model"),
        "other": (
            {key.replace("down_blocks", "past_blocks"): each for key, each in state.items()},
            "of its 32 layers are not there",
        ),
    }
    for name, (tensors, said) in broken.items():
        save_file(tensors, sd.file(name))
        for renderer in (sd.engine, sd.reference):
            with pytest.raises(JobError, match=said):
                renderer.render(sd.request([(name, 1.0)]))
    assert np.abs(sd.engine.render(good)[0] - sd.by_diffusers([("plain", 1.0)])).max() <= CLOSE


def test_a_file_that_is_not_the_rows_is_not_used(sd: Workshop) -> None:
    asked = sd.request([("plain", 1.0)])
    save_lora(sd.root, "plain", 1, ATTENTION)
    with pytest.raises(JobError, match=f"and the row's is {asked.loras[0].digest[:12]}"):
        sd.engine.render(asked)


def test_a_compiled_model_takes_no_loras(tmp_path: Path, sd: Workshop) -> None:
    profile = PROFILE.model_copy(update={"compile": True})
    reference = DiffusersRenderer(Models(sd.root, "cpu"), profile)
    with pytest.raises(JobError, match=r"renderer\.compile and LoRAs"):
        reference.render(sd.request([("plain", 1.0)]))


def test_profiles_of_few_steps_render_as_their_model_cards_say(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """With the scheduler, the timesteps and the LoRA that each card's program has."""
    trailing = {"timestep_spacing": "trailing"}
    cards: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
        "sdxl-lightning": (diffusers.EulerDiscreteScheduler, trailing, {}),
        "sdxl-hyper": (diffusers.DDIMScheduler, trailing, {}),
        "sdxl-dmd2": (diffusers.LCMScheduler, {}, {"timesteps": [999, 749, 499, 249]}),
        "sdxl-lcm": (diffusers.LCMScheduler, {}, {"guidance_scale": 1.0}),
    }
    xl = small_models.made("sdxl")
    xl.scheduler = diffusers.EulerDiscreteScheduler.from_config(SDXL_SCHEDULE)
    xl.save_pretrained(tmp_path / "model")
    save_lora(tmp_path, "distilled", 3, [*ATTENTION, "conv1", "conv2"])
    for name, (scheduler, settings, given) in cards.items():
        profile = Profile.load(name)
        (lora,) = profile.defaults.loras
        shutil.copy(
            tmp_path / "loras/distilled.safetensors", tmp_path / f"loras/{lora.name}.safetensors"
        )
        changes = {"model": "model", "variant": "", "dtype": "float32"}
        renderer = profile.renderer.model_copy(update=changes)
        engine = local_renderer(Models(tmp_path, "cpu"), renderer)
        assert isinstance(engine, EngineRenderer)
        file = tmp_path / f"loras/{lora.name}.safetensors"
        defaults = {key: getattr(profile.defaults, key) for key in ("steps", "guidance")}
        asked = RenderRequest(
            prompt="a red circle", negative="", width=32, height=32, seeds=(7,),
            loras=(Lora(name=lora.name, weight=lora.weight, digest=digest(file)),), **defaults,
        )  # fmt: skip
        (made,) = engine.render(asked)
        engine.close()
        pipe: Any = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "model")
        pipe.load_lora_weights(file)
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **settings)
        pipe.set_progress_bar_config(disable=True)
        steps = {} if "timesteps" in given else {"num_inference_steps": 4}
        image = pipe(
            "a red circle", width=32, height=32, generator=torch.Generator().manual_seed(7),
            output_type="np", **({"guidance_scale": 0.0} | steps | given),
        ).images[0]  # fmt: skip
        with subtests.test(name):
            assert made is not None
            assert np.abs(made - image).max() <= CLOSE
