"""Image tokens made of a scene instead of an image, so that language is learnt beside the tower.

A place's token is the sum of embeddings of the background and of the thing that stands there. The
tower's projected features are then drawn towards these tokens, whose language is known by then.
"""

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from examples.shapes import world
from examples.shapes.training.sees.asking import BLOB
from examples.shapes.training.sees.looks import Looks
from examples.shapes.training.sees.model import SPOKEN, STRIDE, TOKENS
from examples.shapes.umpire import NONE
from examples.shapes.world.drawing import _RADIUS, _offsets

_NAMES = {"shape": (*world.SHAPES, NONE), "colour": tuple(world.COLOURS), "size": world.SIZES}
_CENTRES = np.stack(np.meshgrid(*[np.arange(STRIDE // 2, world.PIXELS, STRIDE)] * 2), -1)


class Symbols(nn.Module):
    """Tokens of places, mostly the words of the thing there, so that words find it at once."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.ground = nn.Parameter(0.1 * torch.randn(len(world.BACKGROUNDS), SPOKEN))
        self.place = nn.Parameter(0.1 * torch.randn(TOKENS, SPOKEN))
        self.others = nn.Parameter(0.1 * torch.randn(3, SPOKEN))
        words = [[tokenizer(f" {BLOB if name == NONE else name}").input_ids[0] for name in names]
                 for names in _NAMES.values()]  # fmt: skip
        self.words = [torch.tensor(ids) for ids in words]

    def forward(self, looks: Looks, embedding: Tensor) -> Tensor:
        """Tokens [n, TOKENS, SPOKEN], with the embeddings of words [words, SPOKEN]."""
        nothing, flaw, unsized = self.others
        grounds = [list(world.BACKGROUNDS).index(s.background) for s in looks.scenes]
        flawed = torch.from_numpy(looks.flawed).float()[:, None] * flaw
        found = (self.ground[grounds] + flawed)[:, None] + self.place
        pairs = zip(looks.scenes, looks.spoiled.tolist(), strict=True)
        places = torch.from_numpy(np.stack([_standing(scene, marks) for scene, marks in pairs]))
        for column, words in enumerate(self.words):
            extra = [unsized] if column == 2 else []
            table = torch.stack([nothing, *embedding[words], *extra])
            found = found + table[places[..., column]]
        return found


def _standing(scene: world.Scene, spoiled: list[bool]) -> np.ndarray:
    """int [TOKENS, 3]: the codes of shape, colour and size of the thing at each place, from 1."""
    found = np.zeros((TOKENS, len(_NAMES)), np.int64)
    for thing, offset, marked in zip(scene.things, _offsets(scene), spoiled, strict=False):
        centre = world.PIXELS / 2 + np.array(offset)
        near = np.linalg.norm(_CENTRES - centre, axis=-1).ravel() < _RADIUS[thing.size] + 3
        values = (NONE if marked else thing.shape, thing.colour, thing.size)
        known = ((*names, None) for names in _NAMES.values())
        found[near] = [names.index(v) + 1 for names, v in zip(known, values, strict=True)]
    return found


def imagined(count: int, rng: np.random.Generator) -> Looks:
    """Looks without images: random scenes, a quarter with things spoiled, some flawed."""
    scenes = [world.sample_scene(rng, two=0.55) for _ in range(count)]
    pairs = np.array([len(scene.things) for scene in scenes]) == 2
    spoiled = rng.random((count, 2)) < np.where(pairs, 0.15, 0.25)[:, None]
    spoiled[~pairs, 1] = False
    return Looks(np.zeros((count, 1, 1, 3), np.uint8), scenes, spoiled, rng.random(count) < 0.08)
