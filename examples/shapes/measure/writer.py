"""The share of the writer's prompts that say exactly what the job and its brand's fact say."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.shapes.training.writer.data import Conversation, Mix, conversation
from examples.shapes.training.writer.names import KNOWLEDGE
from examples.shapes.training.writer.passages import held_out_taste, plain_taste, training_taste

BATCH = 32


class Writer:
    """The saved model, answering many conversations at once, greedily."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32
        ).eval()

    def prompts(self, users: list[str]) -> list[str]:
        """The prompt that each user message is answered with, in order; "" where there is none."""
        order = sorted(range(len(users)), key=lambda i: len(users[i]))
        found = [""] * len(users)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            for i, answer in zip(part, self.answers([users[i] for i in part]), strict=True):
                found[i] = answer.rpartition("prompt:")[2].strip() if "prompt:" in answer else ""
        return found

    @torch.inference_mode()
    def answers(self, users: list[str]) -> list[str]:
        """The answers of one batch."""
        messages = [[{"role": "user", "content": user}] for user in users]
        inputs = self.tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        made = self.model.generate(**inputs)
        return self.tokenizer.batch_decode(
            made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )


def measure(models: Path, seed: int = 0, count: int = 200) -> dict[str, float]:
    """Exact prompts of `models`/writer: by number of brands in the context, and held-out kinds."""
    return measure_model(models / "writer", seed, count)


def measure_model(folder: Path, seed: int = 0, count: int = 200) -> dict[str, float]:
    """The figures of `measure` for the writer in `folder`."""
    writer = Writer(folder)
    figures = {name: exact(writer, talks) for name, talks in held_out_sets(seed, count)}
    return figures | {"knowledge_base": exact(writer, knowledge_base(seed))}


def held_out_sets(seed: int, count: int) -> Iterator[tuple[str, list[Conversation]]]:
    """The measured sets by name, each of `count` conversations."""
    rng = np.random.default_rng(seed)
    known, unseen, trained = plain_taste(), held_out_taste(), training_taste()
    for brands in (1, 2, 4, 6, 8):
        mix = Mix(brands=brands, only_facts=True)
        yield f"brands_{brands}", [conversation(rng, known, mix) for _ in range(count)]
    yield "mixed", [conversation(rng, known, Mix()) for _ in range(count)]
    scrambled = Mix(brands=2, only_facts=True)
    yield "scrambled_2", [conversation(rng, trained, scrambled) for _ in range(count)]
    for brands in (1, 2, 4, 6):
        mix = Mix(brands=brands, only_facts=True)
        yield f"unseen_{brands}", [conversation(rng, unseen, mix) for _ in range(count)]


def knowledge_base(seed: int, passages: int = 5) -> list[Conversation]:
    """One job per brand of the example knowledge base: its fact among random other passages."""
    rng = np.random.default_rng(seed)
    truth = json.loads((KNOWLEDGE / "truth.json").read_text(encoding="utf-8"))
    lines = (KNOWLEDGE / "brands.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    talks = []
    for row in rows:
        brand = row["title"].partition(":")[0]
        if "mark" not in row["tags"]:
            continue
        others = rng.choice([other for other in rows if other is not row], passages - 1)
        context = [f"{found['title']}: {found['text']}" for found in (row, *others)]
        rng.shuffle(context)
        user = f"keywords: {brand} logo\ncontext:\n" + "\n".join(f"- {text}" for text in context)
        talks.append(Conversation(user, "", truth[brand]))
    return talks


def exact(writer: Writer, talks: list[Conversation]) -> float:
    """The share of prompts that are the wanted one, word for word."""
    made = writer.prompts([talk.user for talk in talks])
    return sum(m == talk.prompt for m, talk in zip(made, talks, strict=True)) / len(talks)
