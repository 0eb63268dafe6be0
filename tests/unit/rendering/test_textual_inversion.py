"""Textual inversions of single rows: in mixed batches as in diffusers' own pipeline, and without a
trace.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import JobError
from pipeline.job import ImageArray, RenderRequest, TextualInversion
from pipeline.models import Models
from pipeline.profile import DiffusersProfile
from pipeline.rendering.calls import call_arguments
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer
from pipeline.telemetry import metered
from tests.harness import small_models

CLOSE, SEEN = 2 / 255, 2.5 / 255
PROFILE = DiffusersProfile(model="model", embeddings="embeddings")


class Texts(NamedTuple):
    """The texts of a request, and the embeddings that it names."""

    prompt: str = "a red circle"
    negative: str = "blue"
    names: tuple[str, ...] = ()


CASES = [
    Texts(),
    Texts("a single circle", names=("single",)),
    Texts("a red circle", "many, single", ("single", "many")),
    Texts("many, single and many", "blue", ("many", "single")),
    Texts("single", "single", ("single",)),
    Texts("a single circle"),
]


@dataclass(frozen=True)
class Workshop:
    """A model with its embeddings, of 1 vector and of 3, and both renderers over them."""

    root: Path
    reference: DiffusersRenderer
    engine: EngineRenderer

    def file(self, name: str) -> Path:
        return self.root / "embeddings" / f"{name}.safetensors"

    def request(self, texts: Texts, **changes: object) -> RenderRequest:
        embeddings = tuple(
            TextualInversion(
                name=name, digest=hashlib.sha256(self.file(name).read_bytes()).hexdigest()
            )
            for name in texts.names
        )
        asked = {
            "prompt": texts.prompt, "negative": texts.negative, "width": 32, "height": 32,
            "steps": 4, "guidance": 3.0, "seeds": (7,), "embeddings": embeddings,
        }  # fmt: skip
        return RenderRequest.model_validate(asked | changes)

    def save(self, name: str, vectors: int, seed: int) -> None:
        """An embedding in the layout of its kind: kohya's for SDXL, else A1111's or diffusers'."""
        made = torch.Generator().manual_seed(seed)
        first, second = (3 * torch.randn(vectors, 32, generator=made) for _ in range(2))
        one = {"emb_params" if vectors > 1 else f"<{name}>": first}
        two = {"clip_l": first, "clip_g": second}
        self.file(name).parent.mkdir(exist_ok=True)
        save_file(
            two if (self.root / "model" / "text_encoder_2").is_dir() else one, self.file(name)
        )

    def by_diffusers(self, texts: Texts) -> ImageArray:
        """The image of a pipeline of its own, with diffusers' loader."""
        pipe: Any = diffusers.DiffusionPipeline.from_pretrained(self.root / "model")
        pipe.set_progress_bar_config(disable=True)
        for name in texts.names:
            tensors = load_file(self.file(name))
            for end, tensor in zip(("", "_2"), sorted(tensors)[::-1], strict=False):
                pipe.load_textual_inversion(
                    {name: tensors[tensor]},
                    tokenizer=getattr(pipe, f"tokenizer{end}"),
                    text_encoder=getattr(pipe, f"text_encoder{end}"),
                )
        arguments = call_arguments(pipe, [self.request(texts)])
        image: ImageArray = pipe(generator=torch.Generator().manual_seed(7), **arguments).images[0]
        return image


def opened(root: Path, family: str) -> Workshop:
    small_models.save(family, root / "model")
    (root / "embeddings").mkdir()
    models = Models(root, "cpu")
    reference = DiffusersRenderer(models, PROFILE)
    return Workshop(root, reference, EngineRenderer(models, PROFILE, reference))


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def workshop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = opened(tmp_path_factory.mktemp(request.param), request.param)
    made.save("single", 1, 1)
    made.save("many", 3, 2)
    return made


@pytest.fixture
def sd(tmp_path: Path) -> Workshop:
    made = opened(tmp_path, "sd")
    made.save("single", 1, 1)
    return made


def test_rows_of_any_embeddings_share_a_batch_and_are_diffusers_own(workshop: Workshop) -> None:
    asked = [workshop.request(texts) for texts in CASES]
    others = [workshop.request(CASES[2], seeds=(9, 10), steps=2)]
    wanted = [workshop.by_diffusers(texts) for texts in CASES]
    for renderer in (workshop.engine, workshop.reference):
        with ThreadPoolExecutor(8) as pool:
            mixed = list(pool.map(renderer.render, [*asked, *others]))
        for request, images, own in zip(asked, mixed, wanted, strict=False):
            assert images[0] is not None
            assert np.abs(images[0] - own).max() <= CLOSE
            (alone,) = renderer.render(request)
            assert alone is not None
            assert np.abs(alone - own).max() <= CLOSE
    assert all(np.abs(each - wanted[0]).max() > SEEN for each in wanted[1:5])
    assert np.abs(wanted[1] - wanted[5]).max() > SEEN


def test_an_embedding_leaves_no_trace(workshop: Workshop) -> None:
    # the engine remembers texts, which would hide a trace
    for renderer in (workshop.reference, workshop.engine):
        plain, shown, again = (
            renderer.render(workshop.request(CASES[case], guidance=2.5))[0] for case in (5, 4, 5)
        )
        assert np.array_equal(plain, again)
        assert not np.array_equal(plain, shown)


def test_two_embeddings_of_one_name_do_not_mix(sd: Workshop) -> None:
    texts = CASES[1]
    for renderer in (sd.engine, sd.reference):
        sd.save("single", 1, 1)
        old = sd.request(texts)
        (before,) = renderer.render(old)
        sd.save("single", 1, 2)
        new = sd.request(texts)
        with ThreadPoolExecutor(4) as pool:
            mixed = [each[0] for each in pool.map(renderer.render, [old, new, old, new])]
        assert all(np.abs(each - before).max() <= CLOSE for each in mixed[::2])
        assert all(np.abs(each - sd.by_diffusers(texts)).max() <= CLOSE for each in mixed[1::2])
        assert np.abs(mixed[0] - mixed[1]).max() > SEEN


def test_each_vector_takes_the_place_of_a_token(sd: Workshop) -> None:
    sd.save("many", 5, 2)
    long = Texts("a " * 70 + "Many", "blue", ("many",))
    for renderer in (sd.engine, sd.reference):
        with metered() as meter:
            renderer.render(sd.request(Texts("a", "a", ("many",))))
            renderer.render(sd.request(long))
        assert meter.notices == [
            "the embedding 'many' has no effect: neither the prompt nor the negative prompt holds "
            "its name",
        ]
        assert (meter.tokens[0].tokens, meter.tokens[0].chunks) == (75, 1)
        with metered() as meter:
            renderer.render(sd.request(long._replace(prompt=f"{long.prompt} a")))
        assert (meter.tokens[0].read, meter.tokens[0].chunks) == (76, 2)


@pytest.mark.parametrize(("before", "ends"), [(0, [75]), (70, [75, 150]), (74, [74, 149])])
def test_the_vectors_of_an_embedding_stay_in_one_chunk(
    sd: Workshop, before: int, ends: list[int]
) -> None:
    sd.save("many", 5, 2)
    texts = Texts("a " * before + "many " + "b " * 90, "blue", ("many",))
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(sd.root / "model")
    pipe.set_progress_bar_config(disable=True)
    pipe.load_textual_inversion({"many": load_file(sd.file("many"))["emb_params"]}, token="many")
    names, arguments = pipe.tokenizer, call_arguments(pipe, [sd.request(texts)])
    for name in ("prompt", "negative_prompt"):
        (words,) = pipe.maybe_convert_prompt(arguments.pop(name), names)
        numbers = names(words, add_special_tokens=False).input_ids
        parts = [numbers[first:end] for first, end in pairwise([0, *ends, len(words)])]
        rows = [
            [names.bos_token_id, *part, *[names.eos_token_id] * (76 - len(part))] for part in parts
        ]
        with torch.no_grad():
            states = pipe.text_encoder(torch.tensor(rows))[0]
        arguments[f"{name}_embeds"] = states.flatten(0, 1)[None]
    own = pipe(generator=torch.Generator().manual_seed(7), **arguments).images[0]
    others = sd.request(CASES[4])
    for renderer in (sd.engine, sd.reference):
        with ThreadPoolExecutor(2) as pool:
            images, _ = pool.map(renderer.render, [sd.request(texts), others])
        assert images[0] is not None
        # one vector of a long prompt changes little
        assert np.abs(images[0] - own).max() <= CLOSE / 100


def test_an_embedding_that_cannot_be_used_fails_its_row_alone(sd: Workshop) -> None:
    broken = {
        "nan": ({"emb_params": torch.full((1, 32), torch.nan)}, "not finite"),
        "wide": (
            {"emb_params": torch.ones(1, 48)},
            "of another base model: its vectors have 48 numbers, and the .* take 32",
        ),
        "two": (
            {"clip_l": torch.ones(1, 32), "clip_g": torch.ones(1, 48)},
            "of another base model: its vectors have 32 and 48 numbers, and the .* take 32",
        ),
    }
    for name, (tensors, said) in broken.items():
        save_file(tensors, sd.file(name))
        for renderer in (sd.engine, sd.reference):
            with pytest.raises(JobError, match=f"the embedding '{name}' .*{said}"):
                renderer.render(sd.request(Texts(f"a {name}", names=(name,))))
    (image,) = sd.engine.render(sd.request(CASES[1]))
    assert image is not None
    assert np.abs(image - sd.by_diffusers(CASES[1])).max() <= CLOSE


def test_a_file_that_is_not_the_rows_is_not_used(sd: Workshop) -> None:
    asked = sd.request(CASES[1])
    sd.save("single", 1, 3)
    with pytest.raises(JobError, match=f"and the row's is {asked.embeddings[0].digest[:12]}"):
        sd.engine.render(asked)


def test_a_mark_in_a_text_is_no_vector(sd: Workshop) -> None:
    hidden = sd.request(CASES[1], negative="blue \U000f0000\U000f0001\U000f0003")
    (found,), (wanted,) = (sd.engine.render(each) for each in (hidden, sd.request(CASES[1])))
    assert np.array_equal(found, wanted)


def test_a_model_with_another_kind_of_text_encoder_takes_none(tmp_path: Path) -> None:
    flux = opened(tmp_path, "flux")
    flux.save("single", 1, 1)
    with pytest.raises(JobError, match="FluxPipeline takes no embeddings"):
        flux.engine.render(flux.request(CASES[1], negative="", guidance=1.0))
