"""Train the writer: a small Llama that reads keywords and passages and writes a text and a prompt.

`python -m examples.shapes.training.writer --out DIR [--seconds N]`
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from examples.shapes.measure.writer import measure_model
from examples.shapes.training.common import (
    Budget,
    arguments,
    log,
    moving_average,
    report,
    save_half,
    seeded,
    set_rate,
    warmup_cosine,
)
from examples.shapes.training.writer_data import MOST_PASSAGES, Conversation, Mix, conversation
from examples.shapes.training.writer_passages import training_taste
from examples.shapes.training.writer_tokenizer import (
    ASSISTANT,
    MAX_LENGTH,
    STOP,
    USER,
    for_transformers,
    train_tokenizer,
)
from examples.shapes.world import POSITIONS

BATCH_TOKENS = 3072
POOL = 192
RATE = 2e-3
EASY = 0.8
BRAND_LAYERS, WORD_LAYERS = (1, 2), (2, 3)


@dataclass(frozen=True)
class Encoded:
    """A conversation in tokens; probes are (token, whether asked for)."""

    ids: list[int]
    answer: int
    brands: list[tuple[int, bool]]
    words: list[tuple[int, bool]]


@dataclass(frozen=True)
class Batch:
    """Right-padded ids [n, t], weight of each next token [n, t], probes' rows, columns and labels."""

    ids: torch.Tensor
    weights: torch.Tensor
    brands: torch.Tensor
    words: torch.Tensor


class Probes(nn.Module):
    """Linear readers of the hidden states, thrown away after training.

    They teach early layers to tell mentions of the asked-for brand from other brands, and its
    look's words from other words, which the answer's loss alone finds late.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.brand = nn.ModuleList([nn.Linear(width, 1) for _ in BRAND_LAYERS])
        self.word = nn.ModuleList([nn.Linear(width, 1) for _ in WORD_LAYERS])

    def forward(self, states: tuple[torch.Tensor, ...], batch: Batch) -> torch.Tensor:
        """The mean binary cross-entropy over the probes."""
        losses = [_probe_loss(p, states[n], batch.brands) for p, n in zip(self.brand, BRAND_LAYERS, strict=True)]
        losses += [_probe_loss(p, states[n], batch.words) for p, n in zip(self.word, WORD_LAYERS, strict=True)]
        return torch.stack(losses).mean()


def _probe_loss(probe: nn.Module, state: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    if not len(at):
        return state.new_zeros(())
    logits = probe(state[at[:, 0], at[:, 1]])[:, 0]
    return binary_cross_entropy_with_logits(logits.float(), at[:, 2].float())


def encode(tokenizer: Tokenizer, conversations: list[Conversation]) -> list[Encoded]:
    """Tokens of whole conversations, as the chat template lays them out."""
    texts = [f"{USER}{c.user}{ASSISTANT}{c.answer}{STOP}" for c in conversations]
    found = []
    for talk, coded in zip(conversations, tokenizer.encode_batch(texts), strict=True):
        ends = {end - len(USER): i for i, (_, end) in enumerate(coded.offsets)}
        brands = [(ends[b], asked) for _, b, asked in talk.brand_spans if b in ends]
        words = [(ends[b], asked) for _, b, asked in talk.word_spans if b in ends]
        answer = coded.ids.index(tokenizer.token_to_id(ASSISTANT))
        found.append(Encoded(coded.ids, answer, brands, words))
    return found


def collate(items: list[Encoded], heavy: frozenset[int]) -> Batch:
    """Pad on the right; only the answer's tokens count, those in `heavy` twice."""
    longest = max(len(item.ids) for item in items)
    ids = torch.zeros(len(items), longest, dtype=torch.long)
    weights = torch.zeros(len(items), longest)
    for row, item in enumerate(items):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        goals = item.ids[item.answer + 1 :]
        weights[row, item.answer : len(item.ids) - 1] = torch.tensor([2.0 if g in heavy else 1.0 for g in goals])
    brands = [(row, i, asked) for row, item in enumerate(items) for i, asked in item.brands]
    words = [(row, i, asked) for row, item in enumerate(items) for i, asked in item.words]
    return Batch(ids, weights, torch.tensor(brands).reshape(-1, 3), torch.tensor(words).reshape(-1, 3))


class Source:
    """Endless batches of like lengths; the number of brands grows as the loss falls."""

    def __init__(self, tokenizer: Tokenizer, rng: np.random.Generator) -> None:
        self.tokenizer, self.rng, self.taste = tokenizer, rng, training_taste()
        self.most_brands = 2
        self.heavy = frozenset(
            i for word in POSITIONS for i in tokenizer.encode(f" {word}").ids[-1:] if i is not None
        )
        self._ready: list[Batch] = []

    def __next__(self) -> Batch:
        if not self._ready:
            self._ready = self._pool()
        return self._ready.pop()

    def _pool(self) -> list[Batch]:
        mix = Mix(most_brands=self.most_brands)
        talks = [conversation(self.rng, self.taste, mix) for _ in range(POOL)]
        items = sorted(encode(self.tokenizer, talks), key=lambda item: len(item.ids))
        batches: list[list[Encoded]] = [[]]
        for item in items:
            if (len(batches[-1]) + 1) * len(item.ids) > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(item)
        self.rng.shuffle(batches)
        return [collate(items, self.heavy) for items in batches if items]


def make_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A fresh model, with two heads in each of the first layers that look for equal tokens.

    Eager attention: on a CPU in bfloat16 it trains twice as fast as the fused one.
    """
    stop = tokenizer.token_to_id(STOP)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=128, intermediate_size=256,
        num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True,
        max_position_embeddings=MAX_LENGTH, rope_theta=10000.0, attn_implementation="eager",
        pad_token_id=0, bos_token_id=None, eos_token_id=stop,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=96, eos_token_id=stop, pad_token_id=0
    )
    for layer in model.model.layers[:2]:
        _look_for_equals(layer.self_attn, heads=2)
    return model


def _look_for_equals(attention: nn.Module, heads: int, scale: float = 3.5) -> None:
    """Start with query = key, so that a token attends to its like: names are found by that."""
    rows = heads * attention.head_dim
    with torch.no_grad():
        attention.k_proj.weight[:rows] *= scale
        attention.q_proj.weight[:rows] = attention.k_proj.weight[:rows]


def answer_loss(model: LlamaForCausalLM, hidden: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, float]:
    """Weighted cross-entropy of the answers' next tokens, and the share of answers without a fault."""
    rows, columns = batch.weights.nonzero(as_tuple=True)
    logits = model.lm_head(hidden[rows, columns]).float()
    goals = batch.ids[rows, columns + 1]
    losses = cross_entropy(logits, goals, reduction="none")
    weights = batch.weights[rows, columns]
    faults = torch.zeros(len(batch.ids)).index_add(0, rows, (logits.argmax(-1) != goals).float())
    return (losses * weights).sum() / weights.sum(), (faults == 0).float().mean().item()


def train(tokenizer: Tokenizer, budget: Budget, rng: np.random.Generator, out: Path) -> LlamaForCausalLM:
    """Train until the budget is spent; snapshots of the averaged model go to `out`."""
    model = make_model(tokenizer)
    probes = Probes(model.config.hidden_size)
    parameters = [*model.parameters(), *probes.parameters()]
    optimizers = _optimizers(model, probes)
    averaged = moving_average(model, 0.998)
    source = Source(tokenizer, rng)
    exact, saved = 0.0, budget.elapsed
    for step, progress in budget:
        batch = next(source)
        for optimizer in optimizers:
            set_rate(optimizer, warmup_cosine(progress))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = model.model(batch.ids, output_hidden_states=True).hidden_states
            loss, right = answer_loss(model, states[-1], batch)
            probe_loss = probes(states, batch)
        (loss + max(0.0, 0.7 - progress) * probe_loss).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        averaged.update_parameters(model)
        exact += 0.03 * (right - exact)
        if step % 50 == 0:
            log(step, budget, loss=loss.item(), probe=probe_loss.item(), exact=exact, brands=source.most_brands)
        exact = _widen(source, exact, progress)
        if budget.elapsed - saved > 240:
            saved = budget.elapsed
            save(averaged.module, tokenizer, out)
    return averaged.module


def _optimizers(model: nn.Module, probes: nn.Module) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the layers' matrices, which learns from fewer tokens here; AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    chosen = {id(p) for p in matrices}
    rest = [p for p in [*model.parameters(), *probes.parameters()] if id(p) not in chosen]
    return (
        torch.optim.Muon(matrices, lr=RATE, weight_decay=0.03, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0),
    )


def _widen(source: Source, exact: float, progress: float) -> float:
    """One brand more when most answers are right, all of them for the last half; returns a fresh share."""
    if source.most_brands < MOST_PASSAGES and (exact > EASY or progress > 0.5):
        source.most_brands += 1
        return exact - 0.1
    return exact


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write config, fp16 weights and tokenizer."""
    save_half(model, out)
    for_transformers(tokenizer).save_pretrained(out)


def main() -> None:
    """Train, save and measure."""
    options = arguments(__doc__, seconds=2100).parse_args()
    rng = seeded(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    budget = Budget(options.seconds, options.steps)
    talks = [conversation(rng, training_taste(), Mix()) for _ in range(4000)]
    tokenizer = train_tokenizer([f"{talk.user}\n{talk.answer}" for talk in talks])
    model = train(tokenizer, budget, rng, options.out)
    save(model, tokenizer, options.out)
    print(f"{model.num_parameters():,} parameters", file=sys.stderr)
    report(**measure_model(options.out, seed=options.seed + 1000, count=100))


if __name__ == "__main__":
    main()
