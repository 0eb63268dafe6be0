"""The rows of a job file, with the weights and input images that they name."""

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.assemble.stores import s3_store
from pipeline.errors import ModelError
from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides, Warn, read_jobs, warn_on_stderr
from pipeline.media.image_store import INPUTS, ImageStore
from pipeline.media.inputs import InputReader
from pipeline.models.accepted import Accepted, accepted_by
from pipeline.models.files import local_model
from pipeline.models.named.folder import WeightsFolder
from pipeline.models.named.loras import LoraFolder
from pipeline.models.named.textual_inversions import TextualInversionFolder
from pipeline.ports import Store
from pipeline.profile import DiffusersProfile, Profile, RendererProfile
from pipeline.settings import Settings


def open_weights(settings: Settings, profile: Profile) -> dict[str, dict[str, WeightsFolder]]:
    """By renderer and column, the folders of weights that a profile's rows may name, those of one
    reference and one model as one. Raises ModelError.
    """

    @cache
    def opened(kind: type[WeightsFolder], reference: str, model: str) -> WeightsFolder | None:
        return kind.open(reference, settings.models, settings.digests, model)

    def by_column(renderer: RendererProfile) -> dict[str, WeightsFolder]:
        if not isinstance(renderer, DiffusersProfile):
            return {}
        folders = {
            "loras": opened(LoraFolder, renderer.loras, renderer.model),
            "embeddings": opened(TextualInversionFolder, renderer.embeddings, renderer.model),
        }
        return {column: folder for column, folder in folders.items() if folder}

    renderers: dict[str, RendererProfile] = {"": profile.renderer, **profile.renderers}
    return {name: by_column(each) for name, each in renderers.items()}


def weights_state(folders: Mapping[str, Mapping[str, WeightsFolder]]) -> str:
    """The state of all these folders, which changes when a file does; empty without any. Raises
    ModelError.
    """
    each = chain.from_iterable(by_column.values() for by_column in folders.values())
    return "+".join(sorted({folder.state() for folder in each}))


def open_inputs(
    settings: Settings,
    job_file: Path,
    store: Store | None = None,
    patiently: Callable[[Callable[[], Any]], Any] = operator.call,
) -> InputReader:
    """The reader of the images that a job file's rows name; without a `store` it stores none.
    `patiently` makes each call to a store.

    Raises ConfigError and StoreError.
    """
    places = [place.strip() for place in settings.inputs.split(",") if place.strip()]
    buckets = {
        place: s3_store(settings.model_copy(update={"store": place}))
        for place in places
        if place.startswith("s3://")
    }
    folders = [Path(place).expanduser() for place in places if place not in buckets]
    return InputReader(
        folders if places else [job_file.absolute().parent],
        buckets,
        ImageStore(store, INPUTS) if store else None,
        patiently,
    )


def open_jobs(
    path: Path,
    overrides: Overrides,
    settings: Settings,
    warn: Warn = warn_on_stderr,
    store: Store | None = None,
    patiently: Callable[[Callable[[], Any]], Any] = operator.call,
) -> Iterator[Job | BadRow]:
    """Every row of a job file under the settings' profile, as `read_jobs` reads it; the images that
    rows name are put into the `store`, if one is given, and `patiently` makes each call to it.

    Raises JobFileError, ConfigError, ModelError and StoreError.
    """
    profile = settings.chosen_profile
    weights = open_weights(settings, profile)
    inputs = open_inputs(settings, path, store, patiently)
    accepted = accepted_settings(settings, profile)
    return read_jobs(path, profile, overrides, warn, weights, inputs, accepted)


def accepted_settings(settings: Settings, profile: Profile) -> dict[str, Accepted]:
    """By the name of a profile's renderer, the settings that its pipeline accepts, where its model
    is here and whole: what is wrong with others is said where they are checked.
    """
    found = dict[str, Accepted]()
    for name, section in {"": profile.renderer, **profile.renderers}.items():
        local = isinstance(section, DiffusersProfile)
        with suppress(ModelError, OSError):
            if local and (model := local_model(section.model, settings.models)):
                found[name] = accepted_by(model)
    return found
