"""The tower's first lessons: to name what is in an image, by heads that are thrown away.

Without them the words would be learnt from features that mean nothing yet.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from examples.shapes.training import common
from examples.shapes.training.looks import augmented
from examples.shapes.training.sees.looks import Looks
from examples.shapes.training.sees.model import TOKENS, WIDTH, features
from examples.shapes.umpire import TRAITS, labels, to_pixels

DECAY, SAVED = 0.995, 200


class Heads(nn.Module):
    """A linear layer over all places, then one head per trait and one for the whole."""

    def __init__(self, inputs: int, hidden: int = 128) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, hidden), nn.SiLU(), nn.Dropout(0.1)
        )
        self.traits = nn.ModuleDict({k: nn.Linear(hidden, len(v)) for k, v in TRAITS.items()})
        self.whole = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Logits per trait, [n, values], and of `whole`, [n], for features [n, places, width]."""
        mixed = self.mix(features)
        named = {name: head(mixed) for name, head in self.traits.items()}
        return named | {"whole": self.whole(mixed)[:, 0]}


def truths(looks: Looks) -> dict[str, Tensor]:
    """The right answers; a spoiled thing's shape is `none`, a flawed image has its whole only."""
    rows = [
        labels(scene, tuple(marks)) if not flawed else [-1] * len(TRAITS)
        for scene, marks, flawed in zip(
            looks.scenes, looks.spoiled.tolist(), looks.flawed.tolist(), strict=True
        )
    ]
    columns = dict(zip(TRAITS, torch.tensor(rows).T, strict=True))
    return columns | {"whole": torch.from_numpy(looks.whole).float()}


def loss(logits: dict[str, Tensor], aims: dict[str, Tensor]) -> Tensor:
    """The summed cross-entropies of what each image has."""
    parts = [
        cross_entropy(logits[name], aims[name], ignore_index=-1, label_smoothing=0.02)
        for name in TRAITS
    ]
    whole = binary_cross_entropy_with_logits(logits["whole"], aims["whole"])
    return torch.stack([*parts, 2 * whole]).sum()


def seen(looks: Looks) -> Tensor:
    """Pixels as training shows them."""
    return augmented(to_pixels(looks.images))


class Eyes(nn.Module):
    """The tower with its heads."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower.to(memory_format=torch.channels_last)
        self.heads = Heads(TOKENS * WIDTH)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """The heads' logits for pixels [n, 3, 64, 64]."""
        return self.heads(features(self.tower, pixels))


def train(
    eyes: Eyes,
    batches: Callable[[], Looks],
    budget: common.Budget,
    rate: float,
    save: Callable[[nn.Module], None],
) -> Eyes:
    """The average of tower and heads after training on these batches; saved at times, too."""
    average = common.moving_average(eyes.train(), DECAY)
    optimizer = torch.optim.AdamW(eyes.parameters(), lr=rate, weight_decay=0.02)
    for step, progress in budget:
        common.set_rate(optimizer, common.warmup_cosine(progress))
        batch = batches()
        with torch.autocast("cpu", torch.bfloat16):
            logits = eyes(seen(batch))
        error = loss({name: values.float() for name, values in logits.items()}, truths(batch))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        average.update_parameters(eyes)
        if step % 100 == 0:
            common.log(step, budget, loss=error.item())
        if step % SAVED == SAVED - 1:
            save(average.module)
    save(average.module)
    return average.module.eval()


@torch.inference_mode()
def accuracy(eyes: Eyes, looks: Looks) -> dict[str, float]:
    """The share right per trait, and of the wholes."""
    logits, aims = eyes(to_pixels(looks.images)), truths(looks)
    right = {name: logits[name].argmax(1) == aims[name] for name in TRAITS}
    found = {n: hits[aims[n] >= 0].float().mean().item() for n, hits in right.items()}
    whole = (logits["whole"] > 0) == aims["whole"].bool()
    return found | {"whole": whole.float().mean().item()}
