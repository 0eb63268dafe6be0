"""Guidance as a table: the texts that each step predicts with, and their weights. Without torch.

A sample's next prediction is the sum of its branches' predictions, each times its weight. A branch
is not computed in steps where its weight is 0.
"""

import re
from dataclasses import dataclass

from pipeline.errors import JobError

MOST_PARTS, MOST_WEIGHT = 8, 10.0

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r":\s{0,9}([+-]?(?:\d{1,3}\.?\d{0,6}|\.\d{1,6}))\s{0,9}$")


@dataclass(frozen=True)
class Branch:
    """A text to predict with, and the weight of its prediction in each step."""

    text: str
    weights: tuple[float, ...]
    unconditional: bool = False


@dataclass(frozen=True)
class Guidance:
    """The guided part of the steps, from the fraction `first` until the fraction `until`, and
    whether the word AND in a prompt divides it into parts that are predicted apart.
    """

    first: float = 0.0
    until: float = 1.0
    composed: bool = False

    @property
    def never(self) -> bool:
        """True where no step is guided."""
        return self.first >= self.until

    def parts(self, prompt: str) -> list[tuple[str, float]]:
        """The parts of a prompt and their weights: the number behind a part's last colon, else 1.

        The syntax is A1111's. Raises JobError.
        """
        if not self.composed:
            return [(prompt, 1.0)]
        texts = _AND.split(prompt)
        found = [
            (text[: end.start()].strip(), float(end[1]))
            if (end := _WEIGHT.search(text))
            else (text.strip(), 1.0)
            for text in texts
        ]
        if len(found) > MOST_PARTS:
            raise JobError(f"AND joins {len(found)} prompts; {MOST_PARTS} are the most")
        if any(abs(weight) > MOST_WEIGHT for _, weight in found):
            raise JobError(f"a weight of the prompts that AND joins is beyond {MOST_WEIGHT:g}")
        if sum(weight for _, weight in found) <= 0:
            raise JobError("the weights of the prompts that AND joins add up to 0 or less")
        return found

    def branches(
        self, prompt: str, negative: str, scale: float, steps: int, *, guided: bool
    ) -> tuple[Branch, ...]:
        """Classifier-free guidance (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598) in the
        guided steps (Kynkäänniemi et al. 2024, https://arxiv.org/abs/2404.07724), or none where
        `guided` is False: `scale` times the prompt's prediction, and the rest of the negative one.

        Each part of a composed prompt (Liu et al. 2022, https://arxiv.org/abs/2206.01714) takes
        its weight times `scale`; where nothing guides, its share of the weights. Raises JobError.
        """
        parts = self.parts(prompt)
        total = sum(weight for _, weight in parts)
        within = [
            guided and self.first * steps <= step < self.until * steps for step in range(steps)
        ]
        found = [
            Branch(text, tuple(scale * weight if each else weight / total for each in within))
            for text, weight in parts
        ]
        if any(within):
            rest = tuple(1 - scale * total if each else 0.0 for each in within)
            found.append(Branch(negative, rest, unconditional=True))
        return tuple(found)


ALL_STEPS = Guidance()
"""Guidance in every step."""
