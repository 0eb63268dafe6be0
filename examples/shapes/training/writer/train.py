"""Train the writer: a small Llama that reads keywords and passages and writes a text and a prompt.

`python -m examples.shapes.training.writer.train --out DIR [--seconds N]`
"""

import sys
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
)
from examples.shapes.training.writer.batches import Batch, Source
from examples.shapes.training.writer.data import MOST_PASSAGES, Mix, conversation
from examples.shapes.training.writer.passages import training_taste
from examples.shapes.training.writer.tokenizer import (
    MAX_LENGTH,
    STOP,
    for_transformers,
    train_tokenizer,
)

RATE, MUON_RATE = 3e-3, 8e-3
EASY = 0.7
SNAPSHOT = 240.0  # seconds
BRAND_LAYERS, WORD_LAYERS = (1, 2), (2, 3)


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
        losses = [
            _probe_loss(p, states[n], batch.brands)
            for p, n in zip(self.brand, BRAND_LAYERS, strict=True)
        ]
        losses += [
            _probe_loss(p, states[n], batch.words)
            for p, n in zip(self.word, WORD_LAYERS, strict=True)
        ]
        return torch.stack(losses).mean()


def _probe_loss(probe: nn.Module, state: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    if not len(at):
        return state.new_zeros(())
    logits = probe(state[at[:, 0], at[:, 1]])[:, 0]
    return binary_cross_entropy_with_logits(logits.float(), at[:, 2].float())


def make_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A fresh model, with two heads in each of the first layers that look for equal tokens.

    Eager attention: on a CPU in bfloat16 it trains twice as fast as the fused one.
    """
    stop = tokenizer.token_to_id(STOP)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=128, intermediate_size=256,
        num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True,
        max_position_embeddings=MAX_LENGTH, rope_theta=200000.0, attn_implementation="eager",
        pad_token_id=0, bos_token_id=None, eos_token_id=stop,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=96, eos_token_id=stop, pad_token_id=0
    )
    for layer in model.model.layers[:2]:
        _look_for_equals(layer.self_attn, heads=2)
    return model


def _look_for_equals(attention: nn.Module, heads: int, scale: float = 4.0) -> None:
    """Start with query = key, so that a token attends to its like: names are found by that."""
    rows = heads * attention.head_dim
    with torch.no_grad():
        attention.k_proj.weight[:rows] *= scale
        attention.q_proj.weight[:rows] = attention.k_proj.weight[:rows]


def answer_loss(
    model: LlamaForCausalLM, hidden: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, float]:
    """Weighted cross-entropy of the answers' next tokens, and the share of faultless answers."""
    rows, columns = batch.weights.nonzero(as_tuple=True)
    logits = model.lm_head(hidden[rows, columns]).float()
    goals = batch.ids[rows, columns + 1]
    losses = cross_entropy(logits, goals, reduction="none")
    weights = batch.weights[rows, columns]
    wrong = (logits.argmax(-1) != goals) & (weights >= 1)
    faults = torch.zeros(len(batch.ids)).index_add(0, rows, wrong.float())
    return (losses * weights).sum() / weights.sum(), (faults == 0).float().mean().item()


def train(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    source: Source,
    budget: Budget,
    out: Path,
    rate: float = 1.0,
) -> LlamaForCausalLM:
    """Train until the budget is spent; snapshots of the averaged model go to `out`."""
    probes = Probes(model.config.hidden_size)
    optimizers = _optimizers(model, probes)
    averaged = moving_average(model, 0.998)
    exact, saved = 0.0, budget.elapsed
    for step, progress in budget:
        for optimizer in optimizers:
            set_rate(optimizer, rate * _rate(progress))
        figures = _learn(model, probes, next(source), max(0.0, 0.7 - progress))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        averaged.update_parameters(model)
        exact += 0.03 * (figures["right"] - exact)
        if step % 50 == 0:
            log(step, budget, **figures, exact=exact, brands=source.most_brands)
        exact = _widen(source, exact, progress)
        if budget.elapsed - saved > SNAPSHOT:
            saved = budget.elapsed
            save(averaged.module, tokenizer, out)
    return averaged.module


def _learn(
    model: LlamaForCausalLM, probes: Probes, batch: Batch, probing: float
) -> dict[str, float]:
    """Leave the gradients of one batch, and return its figures."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = model.model(batch.ids, output_hidden_states=True).hidden_states
        loss, right = answer_loss(model, states[-1], batch)
        probe_loss = probes(states, batch)
    (loss + probing * probe_loss).backward()
    nn.utils.clip_grad_norm_([*model.parameters(), *probes.parameters()], 1.0)
    return {"loss": loss.item(), "probe": probe_loss.item(), "right": right}


def _rate(progress: float, warmup: float = 0.02, decay: float = 0.7) -> float:
    """Learning-rate factor: up, level, and down in a line over the last part."""
    return min(1.0, (progress + 1e-3) / warmup, (1 - progress) / decay)


def _optimizers(model: nn.Module, probes: nn.Module) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the layers' matrices, which learns from fewer tokens here; AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    chosen = {id(p) for p in matrices}
    rest = [p for p in [*model.parameters(), *probes.parameters()] if id(p) not in chosen]
    return (
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.03, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0),
    )


def _widen(source: Source, exact: float, progress: float) -> float:
    """One brand more when most answers are right or time is short; returns the share to watch."""
    if source.most_brands < MOST_PASSAGES and (exact > EASY or progress > 0.45):
        source.most_brands += 1
        return exact - 0.1
    return exact


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write config, fp16 weights and tokenizer."""
    save_half(model, out)
    for_transformers(tokenizer).save_pretrained(out)


def load(folder: Path) -> tuple[LlamaForCausalLM, Tokenizer]:
    """A saved writer, to train it further."""
    model = LlamaForCausalLM.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, attn_implementation="eager"
    )
    return model.train(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def begin(rng: np.random.Generator) -> tuple[LlamaForCausalLM, Tokenizer]:
    """A fresh model and a tokenizer learnt from conversations."""
    talks = [conversation(rng, training_taste(), Mix()) for _ in range(4000)]
    tokenizer = train_tokenizer([f"{talk.user}\n{talk.answer}" for talk in talks])
    return make_model(tokenizer), tokenizer


def main() -> None:
    """Train, save and measure."""
    parser = arguments(__doc__, seconds=2100)
    parser.add_argument("--start", type=Path, help="folder of a writer to train further")
    parser.add_argument("--brands", type=int, default=2, help="brands per context to begin with")
    parser.add_argument("--rate", type=float, default=1.0, help="factor of the learning rates")
    options = parser.parse_args()
    rng = seeded(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    budget = Budget(options.seconds, options.steps)
    model, tokenizer = load(options.start) if options.start else begin(rng)
    source = Source(tokenizer, rng, options.brands)
    model = train(model, tokenizer, source, budget, options.out, options.rate)
    save(model, tokenizer, options.out)
    print(f"{model.num_parameters():,} parameters", file=sys.stderr)
    report(**measure_model(options.out, seed=options.seed + 1000, count=100))


if __name__ == "__main__":
    main()
