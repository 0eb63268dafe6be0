"""A few jobs of a long file, spread evenly over it, in one pass and little memory."""

import random
from itertools import pairwise

from pipeline.job import Job


class Spread:
    """Picks `count` of the jobs that it is shown: the file falls into stretches of equal length,
    of each of which one job is kept by chance, so that a file that repeats itself is met in all
    its turns. Equal files give equal picks.
    """

    def __init__(self, count: int) -> None:
        self._count, self._stretch = count, 1
        self._kept = list[Job]()
        self._open: Job | None = None
        self._met = 0
        self._random = random.Random(count)

    def add(self, job: Job) -> None:
        """Show the next job."""
        self._met += 1
        if self._random.randrange(self._met) == 0:
            self._open = job
        if self._met == self._stretch:
            self._close()
        if len(self._kept) == 2 * self._count:
            # two neighbours become one stretch, of which either is as good
            pairs = zip(self._kept[::2], self._kept[1::2], strict=True)
            self._kept = [self._random.choice(pair) for pair in pairs]
            self._stretch *= 2

    def picked(self) -> list[Job]:
        """The jobs so far, in the order of the file: `count`, or all where there are fewer."""
        found = [*self._kept, *([self._open] if self._open else [])]
        count = min(self._count, len(found))
        bounds = [len(found) * place // count for place in range(count + 1)] if count else []
        return [self._random.choice(found[begin:end]) for begin, end in pairwise(bounds)]

    def _close(self) -> None:
        assert self._open
        self._kept.append(self._open)
        self._open, self._met = None, 0
