"""Calls of the model that are left out: its predictions go on in a straight line meanwhile.

Taylor's expansion of first order of Liu et al. 2025, "From Reusing to Forecasting",
https://arxiv.org/abs/2503.06923, here of the whole prediction and not of each block's features. So
a call that is left out costs nothing, and one sample's leaves the others of its batch alone.
Without torch.
"""

from collections.abc import Hashable, Sequence


def predicted_calls(settings: Sequence[Hashable], every: int) -> tuple[bool, ...]:
    """The calls in which the model predicts: one of `every`, the last one among them, and the first
    two of each run of equal `settings`, which tell what a call's prediction is made with.
    """
    last = len(settings) - 1
    return tuple(
        (last - call) % every == 0 or call < 2 or len(set(settings[call - 2 : call + 1])) > 1
        for call in range(len(settings))
    )
