"""Long and weighted prompts: chunks and weights as written out here, in the engine as in diffusers'
own pipelines.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from pipeline.errors import JobError
from pipeline.job import RenderRequest
from pipeline.models import Models
from pipeline.profile import DiffusersProfile
from pipeline.rendering.calls import call_arguments
from pipeline.rendering.diffusers import DiffusersRenderer
from pipeline.rendering.local import EngineRenderer
from pipeline.rendering.prompts import as_it_stands, read_weights
from pipeline.rendering.text_encoders import BACKTRACK, TextEncoder, TextEncoders, weighed
from pipeline.telemetry import metered
from tests.harness import small_models

CLOSE, SEEN = 2 / 255, 2.5 / 255
ROOM, LONGEST = 75, {"sd3": 255, "flux": 255, "flux-dev": 511}
WORDS = "the quick brown fox jumps over a lazy dog " * 10
"""330 tokens of the tiny tokenizers, a letter each."""

Parts = Sequence[tuple[str, float]]
TEXTS: dict[str, Parts] = {
    WORDS: [(WORDS, 1.0)],
    "a (red:1.4) circle [on] ((blue))": [
        ("a ", 1.0),
        ("red", 1.4),
        (" circle ", 1.0),
        ("on", 1 / 1.1),
        (" ", 1.0),
        ("blue", 1.1 * 1.1),
    ],
    f"({WORDS}:0.5) (red:1.5)": [(WORDS, 0.5), (" ", 1.0), ("red", 1.5)],
    "": [],
}


def a_pipe(family: str) -> Any:
    """A tiny pipeline whose text encoders' states have a mean, as those of trained ones do."""
    pipe = small_models.made(family)
    for name, part in pipe.components.items():
        if name.startswith("text_encoder"):
            for weight, values in part.named_parameters():
                if weight.endswith("final_layer_norm.bias"):
                    torch.nn.init.constant_(values, 0.25)
    return pipe


def by_hand(
    family: str, pipe: Any, end: str, parts: Parts, chunks: int, pick: Callable[[Any], Tensor]
) -> tuple[Tensor, Any]:
    """A text encoder's weighted states of all chunks, and its output for the first one."""
    names, model = getattr(pipe, f"tokenizer{end}"), getattr(pipe, f"text_encoder{end}")
    clip = names.bos_token_id is not None
    room, begin = (ROOM, [names.bos_token_id]) if clip else (LONGEST[family], [])
    tokens = [
        (number, weight)
        for words, weight in parts
        for number in names(words, add_special_tokens=False).input_ids
    ]
    states, outputs = list[Tensor](), list[Any]()
    for first in range(0, chunks * room, room):
        chunk = tokens[first : first + room]
        padding = [names.pad_token_id] * (room - len(chunk))
        row = [*begin, *(number for number, _ in chunk), names.eos_token_id, *padding]
        weights = torch.ones(len(row))
        weights[len(begin) : len(begin) + len(chunk)] = torch.tensor([w for _, w in chunk])
        with torch.no_grad():
            outputs.append(model(torch.tensor([row]), output_hidden_states=True))
        z = pick(outputs[-1])[0]
        weighed = z * weights[:, None]
        states.append(weighed * (z.mean() / weighed.mean()))
    return torch.cat(states), outputs[0]


def conditions(family: str, pipe: Any, parts: Parts, chunks: int) -> dict[str, Tensor]:
    """What a family's text encoders make of weighted words."""

    def last(output: Any) -> Tensor:
        return output[0]  # type: ignore[no-any-return]

    def penultimate(output: Any) -> Tensor:
        return output.hidden_states[-2]  # type: ignore[no-any-return]

    if family == "sd":
        return {"text": by_hand(family, pipe, "", parts, chunks, last)[0]}
    if family.startswith("flux"):
        _, summary = by_hand(family, pipe, "", parts, 1, last)
        states, _ = by_hand(family, pipe, "_2", parts, 1, last)
        return {"text": states, "pooled": summary.pooler_output[0]}
    found = [by_hand(family, pipe, end, parts, chunks, penultimate) for end in ("", "_2")]
    states, pooled = torch.cat([each for each, _ in found], -1), found[1][1][0][0]
    if family == "sd3":
        more, _ = by_hand(family, pipe, "_3", parts, 1, last)
        widened = torch.nn.functional.pad(states, (0, more.shape[1] - states.shape[1]))
        states, pooled = torch.cat([widened, more]), torch.cat([f[0][0] for _, f in found])
    return {"text": states, "pooled": pooled}


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux", "flux-dev"])
def test_chunks_and_weights_are_those_written_out_here(family: str) -> None:
    pipe = a_pipe(family)
    encoders = TextEncoders(pipe, weighted=True)
    prompts = encoders.prompts(list(TEXTS))
    assert {prompt.chunks for prompt in prompts} == {1 if family.startswith("flux") else 5}
    for found, parts in zip(encoders.encode(prompts), TEXTS.values(), strict=True):
        wanted = conditions(family, pipe, parts, 5)
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            assert torch.allclose(value, wanted[name], atol=1e-5)


@dataclass(frozen=True)
class Workshop:
    """A model, and both renderers over it."""

    family: str
    pipe: Any
    engine: EngineRenderer
    reference: DiffusersRenderer


@pytest.fixture(scope="module", params=["sd", "sdxl", "sd3"])
def workshop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    root, family = tmp_path_factory.mktemp(request.param), str(request.param)
    a_pipe(family).save_pretrained(root / "model")
    models = Models(root, "cpu")
    profile = DiffusersProfile(model="model", weighted=True, composed=True)
    reference = DiffusersRenderer(models, profile)
    engine = EngineRenderer(models, profile, reference)
    return Workshop(family, models.diffusion(profile), engine, reference)


def a_request(prompt: str, negative: str = "", **changes: object) -> RenderRequest:
    asked = {
        "prompt": prompt, "negative": negative, "width": 32, "height": 32, "steps": 3,
        "guidance": 3.0, "seeds": (7,),
    }  # fmt: skip
    return RenderRequest.model_validate(asked | changes)


def test_rows_of_any_length_share_the_engine_and_are_diffusers_own(workshop: Workshop) -> None:
    plain, weighted, long, empty = TEXTS
    cases = [
        ("a red circle", "blue", 0),
        (long, "blue", 5),
        (weighted, long, 5),
        (weighted, empty, 1),
        (plain, empty, 5),
    ]
    asked = [a_request(prompt, negative) for prompt, negative, _ in cases]
    owns = []
    for request, (prompt, negative, chunks) in zip(asked, cases, strict=True):
        arguments = call_arguments(workshop.pipe, [request])
        if chunks:
            texts = {"": prompt, "negative_": negative}
            for prefix, text in texts.items():
                parts = TEXTS.get(text, [(text, 1.0)])
                made = conditions(workshop.family, workshop.pipe, parts, chunks)
                if workshop.family == "sdxl" and not text:
                    made = {name: torch.zeros_like(value) for name, value in made.items()}
                arguments.pop(f"{prefix}prompt", None)
                for name, key in (("text", "prompt_embeds"), ("pooled", "pooled_prompt_embeds")):
                    if name in made:
                        arguments[prefix + key] = made[name][None]
        generator = torch.Generator().manual_seed(7)
        owns.append(workshop.pipe(generator=generator, **arguments).images[0])
    for renderer in (workshop.engine, workshop.reference):
        with ThreadPoolExecutor(8) as pool:
            mixed = list(pool.map(renderer.render, [*asked, *asked[::-1]]))
        for images, own in zip(mixed, [*owns, *owns[::-1]], strict=True):
            assert images[0] is not None
            assert np.abs(images[0] - own).max() <= CLOSE
    assert all(np.abs(own - owns[0]).max() > SEEN for own in owns[1:])


def test_a_prompt_of_300_tokens_loses_nothing(workshop: Workshop) -> None:
    longer = WORDS + "and red"
    for renderer in (workshop.engine, workshop.reference):
        images = []
        for prompt in (WORDS, longer):
            with metered() as meter:
                images += renderer.render(a_request(prompt))
            clips = [each for each in meter.tokens if each.encoder != "text encoder 3"]
            assert {each.encoder for each in clips} >= {"text encoder"}
            assert all(each.tokens == each.read > 300 and each.chunks == 5 for each in clips)
        first, second = images
        assert first is not None
        assert second is not None
        # its last words are seen, too
        assert not np.array_equal(first, second)


def test_each_part_of_a_composed_prompt_has_its_weights_and_chunks(workshop: Workshop) -> None:
    parts = f"(red:1.3) circle :1.2 AND {WORDS}"
    with metered() as meter:
        (both,) = workshop.engine.render(a_request(parts))
        (one,) = workshop.engine.render(a_request(parts.replace("1.3", "1.0")))
    assert both is not None
    assert one is not None
    assert not np.array_equal(both, one)
    assert [each.chunks for each in meter.tokens if each.encoder == "text encoder"] == [1, 5]


def test_states_without_a_mean_are_not_scaled_by_rounding() -> None:
    states = torch.tensor([[[1.0, -1.0], [2.0, -2.0 + 1e-6]]])
    weights = torch.tensor([[1.0, 3.0]])
    assert torch.equal(weighed(states, weights), states * weights[..., None])


def test_weights_that_a_model_cannot_be_given_fail_their_row_alone() -> None:
    encoders = TextEncoders(small_models.made("qwen-image"), weighted=True)
    for prompt in ("a (red:1.2) circle", "red BREAK blue"):
        with pytest.raises(JobError, match="QwenImagePipeline takes no weights in a prompt"):
            encoders.prompts([prompt])
    assert [each.plain for each in encoders.prompts([r"a \(red\) circle"])] == ["a (red) circle"]


def test_brackets_are_words_unless_the_profile_says_otherwise() -> None:
    encoders = TextEncoders(small_models.made("sd"))
    assert encoders.prompts(["a (red:1.2)"]) == as_it_stands(["a (red:1.2)"])


def a_tokenizer() -> CLIPTokenizer:
    """Letters, and commas."""
    entries = [
        *"abcdef,",
        *(f"{sign}</w>" for sign in "abcdef,"),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocab = {entry: number for number, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("a " * 75, [75]),
        ("a " * 76, [75, 1]),
        # behind the last comma, where it is near the end
        ("a " * 70 + ", " + "b " * 10, [71, 10]),
        ("a " * (75 - BACKTRACK) + ", " + "b " * 30, [76 - BACKTRACK, 30]),
        ("a " * (74 - BACKTRACK) + ", " + "b " * 30, [75, 10]),
        ("a " * 74 + ", b", [75, 1]),
        ("a " * 75 + ", b", [75, 2]),
        ("a BREAK b", [1, 1]),
        ("BREAK b", [0, 1]),
        ("a BREAK BREAK b BREAK", [1, 0, 1]),
        ("", [0]),
        ("a " * 70 + "BREAK " + "b " * 76, [70, 75, 1]),
    ],
)
def test_a_chunk_ends_behind_a_comma_and_before_a_break(text: str, lengths: list[int]) -> None:
    pipe = small_models.made("sd")
    encoder = TextEncoder(
        "text_encoder", pipe.text_encoder, a_tokenizer(), longest=None, chunked=True
    )
    chunks = encoder.chunks(read_weights(text))
    assert [len(chunk) for chunk in chunks] == lengths
    numbers = [token.number for chunk in chunks for token in chunk]
    plain = read_weights(text).plain
    assert numbers == a_tokenizer()(plain, add_special_tokens=False).input_ids
