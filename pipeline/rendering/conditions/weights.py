"""Reading of weights that a row names."""

import hashlib
import os
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from pipeline.errors import MALFORMED, JobError
from pipeline.job import NamedWeights
from pipeline.models.named.folder import Found, WeightsFolder


class Read(NamedTuple):
    """A row's weights, on the processor, and the state that their file had before it was read."""

    found: Found
    state: os.stat_result
    tensors: dict[str, Tensor]


def read(folder: WeightsFolder, asked: NamedWeights) -> Read:
    """The weights that a row names. Raises JobError for a file that cannot be used, and for another
    one than the row's.
    """
    found, what = folder.find(asked.name), f"the {folder.kind} {asked.name!r}"
    try:
        state, data = found.file.stat(), found.file.read_bytes()
        if (digest := hashlib.sha256(data).hexdigest()) != asked.digest:
            raise JobError(
                f"{what} here is {digest[:12]}, and the row's is {asked.digest[:12] or 'not known'}"
            )
        tensors = load(data)
    except (OSError, SafetensorError, *MALFORMED) as error:
        raise JobError(f"{what} cannot be read: {error}") from error
    return Read(found, state, tensors)
