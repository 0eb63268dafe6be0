"""The composition root: the only place that picks implementations, with late heavy imports."""

import operator
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import chain
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.errors import ConfigError, JobError, ModelError, RunError
from pipeline.job import BadRow, Context, Embedding, ImageArray, Job
from pipeline.jobfile.reader import Overrides, Warn, read_jobs, warn_on_stderr
from pipeline.judging.panel import Panel
from pipeline.media.image_store import INPUTS, KNOWLEDGE, ImageStore
from pipeline.media.inputs import InputReader, StoredInputs
from pipeline.models import (
    Models,
    digest,
    digests_of,
    for_each_role,
    references,
    remarks,
    role_folders,
    variant,
    verify,
)
from pipeline.models.accepted import Accepted, accepted_by
from pipeline.models.controlnets import check_fit
from pipeline.models.files import local_model, resolve
from pipeline.models.named.folder import WeightsFolder
from pipeline.models.named.loras import LoraFolder
from pipeline.models.named.textual_inversions import TextualInversionFolder
from pipeline.ports import Judge, Ports, Renderer, Retriever, Store, Writer
from pipeline.profile import (
    JUDGES,
    RETRIEVERS,
    A1111Profile,
    ClassifierGuardProfile,
    ClipJudgeProfile,
    ConceptGuardProfile,
    DiffusersProfile,
    EndpointWriterProfile,
    GuardProfile,
    JudgeProfile,
    LocalWriterProfile,
    Profile,
    QdrantProfile,
    RendererProfile,
    RetrievalProfile,
    TemplateWriterProfile,
    TermsGuardProfile,
    WriterProfile,
    profile_of,
)
from pipeline.record import RunSpec
from pipeline.records.run_folder import RunFolder
from pipeline.rendering.pool import LoadedRenderer, ModelRenderer, RendererPool
from pipeline.retrieval.embedders import Embedder, Embedders, ImageEmbedder, embedding
from pipeline.retrieval.images import embedded
from pipeline.safety.classifier import Classifier, check_labels, labels
from pipeline.safety.guards import Guards, ImageCheck, ImageGuard, TextGuard
from pipeline.safety.terms import Terms
from pipeline.settings import Settings
from pipeline.storage.folder import FolderStore
from pipeline.storage.probe import WRITERS, honours_conditions

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from pipeline.retrieval.ingest import Library
    from pipeline.storage.s3 import S3Store

PATIENCE = 5.0
"""Seconds for which a worker waits for a knowledge base that another process holds; a command that
only reads it is done by then.
"""

log = structlog.get_logger(__name__)


class Assembly:
    """The implementations of one process, each made once and shared by all runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = open_store_to_commit(settings)
        self.models = open_models(settings)
        self._opening = threading.Lock()
        self._client = cache(partial(open_knowledge, settings, PATIENCE))
        self._retriever: Callable[[RetrievalProfile], Retriever] = cache(
            lambda profile: resolve_name(RETRIEVERS[profile.kind].made_by)(
                self.models, self._knowledge, profile
            )
        )
        self._image_embedder = cache(lambda reference: open_image_embedder(reference, self.models))
        self._writer = cache(self._make_writer)
        self.renderers = RendererPool(_Loader(settings, self.models))
        self._guards = cache(
            lambda sections, clip: open_guards(sections, clip, self.models, self._store)
        )
        self._judge: Callable[[JudgeProfile], Judge] = cache(self._make_judge)

    def run_folder(self, run: str) -> RunFolder:
        """The folder of one run in the store."""
        return RunFolder(self._store, run, self._settings.image_format)

    def load(self, profile: Profile) -> None:
        """Load a profile's models ahead of its first job; of several renderers the default one.

        Raises ModelError.
        """
        self._writer(profile.writer)
        self.renderers.load(profile.of(profile.defaults.model).renderer)
        self._panel(profile)
        self._guards(profile.guard, profile.clip).load()

    def renderer(self, spec: RunSpec) -> Renderer:
        """A run's renderer, without loading its other models."""
        return ModelRenderer(profile_of(spec), self.renderers)

    def inputs(self, spec: RunSpec) -> StoredInputs:
        """The stored input images of a run's rows, embedded as its profile says."""
        profile = profile_of(spec).retrieval

        def embed(image: ImageArray) -> Embedding:
            if isinstance(profile, QdrantProfile):
                encoder = self._image_embedder(profile.image_encoder)
                if encoder is not None:
                    return embedding(encoder.encode_images([image])[0], profile.image_norm)
            raise JobError("the profile names no encoder of images (retrieval.image_encoder)")

        return StoredInputs(ImageStore(self._store, INPUTS), embed)

    def compare(self, profile: Profile, run: str, digests: Mapping[str, str]) -> None:
        """Raise ModelError where the model of a role differs from that of a run in `digests`."""
        for role, reference in references(profile).items():
            if (wanted := digests.get(role)) is None:
                continue
            found = self.models.digest(reference, role, variant(profile, role))
            if found != wanted:
                raise ModelError(
                    f"The {role} {reference!r} here is {found[:12]}, and run {run} is of "
                    f"{wanted[:12]}: put those files here and start the worker again, or submit "
                    "the job file again, which does what is left with these."
                )

    def embedded(self, spec: RunSpec, context: Context) -> Context:
        """A record's context with its images' embeddings, computed from the stored images.

        Raises ModelError, StoreError, and RunError where an image is gone.
        """
        whole = profile_of(spec)
        profile = whole.retrieval
        if not isinstance(profile, QdrantProfile):
            return context
        encoder = self._image_embedder(profile.image_encoder)
        compared = any(judge.kind == "reference" for judge in whole.judge)
        if encoder is None or not any(each.scale or compared for each in context.references):
            return context
        try:
            images = ImageStore(self._store, KNOWLEDGE)
            return embedded(context, encoder, images, profile.image_norm)
        except KeyError as error:
            raise RunError(f"The image {error} of the knowledge base is gone.") from error

    def ports(self, spec: RunSpec) -> Ports:
        """The ports of a run, as its spec's profile names them.

        Raises ModelError, also where a model here differs from the spec's.
        """
        profile = profile_of(spec)
        self.compare(profile, spec.run, spec.models)
        return Ports(
            guard=self._guards(profile.guard, profile.clip),
            retriever=self._retriever(profile.retrieval),
            writer=self._writer(profile.writer),
            inputs=self.inputs(spec),
            renderer=ModelRenderer(profile, self.renderers),
            judge=self._panel(profile),
            records=self.run_folder(spec.run).records,
            run=spec.run,
            judge_against=profile.judge[0].against,
            models={
                name: digests_of(profile, name, spec.models) for name in ("", *profile.renderers)
            },
            weighted=[
                name
                for name, section in [("", profile.renderer), *profile.renderers.items()]
                if isinstance(section, DiffusersProfile) and section.weighted
            ],
        )

    def _panel(self, profile: Profile) -> Judge:
        judges = [each.beside(profile.retrieval) for each in profile.judge]
        return Panel([(each, self._judge(each)) for each in judges], profile.panel)

    def _make_judge(self, profile: JudgeProfile) -> Judge:
        plug = JUDGES[profile.kind]
        given = self._settings if plug.made_of == "settings" else self.models
        judge: Judge = resolve_name(plug.made_by)(given, profile)
        return judge

    def _knowledge(self) -> "QdrantClient":
        """The knowledge base, opened once and shared by all profiles."""
        with self._opening:
            return self._client()

    def _make_writer(self, profile: WriterProfile) -> Writer:
        match profile:
            case LocalWriterProfile():
                from pipeline.writing.local import LocalWriter

                return LocalWriter(self.models, profile)
            case EndpointWriterProfile():
                from pipeline.writing.endpoint import EndpointWriter

                settings = self._settings
                return EndpointWriter(profile, settings.writer_url, settings.writer_api_key)
            case TemplateWriterProfile():
                from pipeline.writing.template import TemplateWriter

                return TemplateWriter(profile)


class _Loader:
    """The Loader of the renderers' kinds."""

    def __init__(self, settings: Settings, models: Models) -> None:
        self._settings, self._models = settings, models

    def load(self, section: RendererProfile) -> LoadedRenderer:
        match section:
            case DiffusersProfile():
                from pipeline.rendering.local import local_renderer

                return local_renderer(self._models, section)
            case A1111Profile():
                from pipeline.rendering.a1111 import A1111Renderer

                settings = self._settings
                return A1111Renderer(
                    settings.a1111_url, settings.a1111_auth.get_secret_value(), section
                )

    def unload(self, section: RendererProfile) -> None:
        if isinstance(section, DiffusersProfile):
            self._models.forget(section)

    def nbytes(self, section: RendererProfile) -> int:
        return self._models.nbytes(section) if isinstance(section, DiffusersProfile) else 0

    def room(self, held: int) -> float:
        return self._models.room(held)

    def out_of_memory(self, error: Exception) -> bool:
        from pipeline.models.faults import out_of_memory

        return any(out_of_memory(each) for each in (error, error.__cause__) if each)


def open_store(settings: Settings, *, conditional: bool = True) -> Store:
    """The store that the settings name. Raises ConfigError and StoreError.

    `conditional` is False for a store that does not honour conditions: `put` with `new` is then a
    check followed by a write.
    """
    if not settings.store.startswith("s3://"):
        return FolderStore(Path(settings.store), conditional=conditional)
    return _s3_store(settings, conditional=conditional)


def reach_store(settings: Settings) -> None:
    """Raise StoreError, within seconds, where the store's server does not answer."""
    if settings.store.startswith("s3://"):
        from pipeline.storage.s3 import FIRST_ATTEMPTS, FIRST_SECONDS

        _s3_store(settings, attempts=FIRST_ATTEMPTS, read_seconds=FIRST_SECONDS).reach()


def _s3_store(settings: Settings, **more: Any) -> "S3Store":
    from pipeline.storage.s3 import S3Store
    from pipeline.storage.s3_upload import encryption

    bucket, _, prefix = settings.store.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"PRESSRUN_STORE: {settings.store!r} names no bucket")
    return S3Store(
        bucket,
        prefix,
        settings.s3_endpoint_url,
        settings.s3_region,
        addressing=settings.s3_addressing,
        encryption=encryption(settings.s3_sse, settings.s3_kms_key),
        **more,
    )


def open_store_to_commit(settings: Settings) -> Store:
    """The store for a process that commits outcomes, after a test of its conditional writes.

    A store that fails the test is used without them: `Lease.confirm` right before each record then
    keeps a second execution away. Raises ConfigError and StoreError.
    """
    store = open_store(settings)
    writers = 2 if isinstance(store, FolderStore) else WRITERS
    if honours_conditions(store, "", writers):
        return store
    log.warning(
        "the store does not refuse to overwrite (If-None-Match, hard links): leases in Redis keep"
        " records single",
        store=store.address(""),
    )
    return open_store(settings, conditional=False)


def open_run_folder(settings: Settings, run: str, *, committing: bool = False) -> RunFolder:
    """The folder of one run; with `committing`, its store is tested first."""
    store = open_store_to_commit(settings) if committing else open_store(settings)
    return RunFolder(store, run, settings.image_format)


def open_models(settings: Settings) -> Models:
    """The models that the settings name, on their device."""
    limit = settings.renderer_memory_mb << 20
    return Models(settings.models, settings.device, settings.digests, limit)


def open_knowledge(settings: Settings, patience: float = 0.0) -> "QdrantClient":
    """The knowledge base that the settings name; `patience` is in seconds, for one that another
    process holds. Raises ConfigError and Unavailable.
    """
    from pipeline.retrieval.client import open_client

    key = settings.qdrant_api_key.get_secret_value()
    return open_client(settings.qdrant_url, key, settings.home / "knowledge", patience)


def qdrant_retriever(
    models: Models, knowledge: Callable[[], "QdrantClient"], profile: QdrantProfile
) -> Retriever:
    """The retriever from Qdrant. Raises ModelError."""
    from pipeline.retrieval.retriever import QdrantRetriever

    embedders = open_embedders(profile, models)
    return QdrantRetriever(knowledge, embedders, profile, open_external_embedders(profile, models))


def open_embedders(profile: QdrantProfile, models: Models) -> Embedders:
    """The embedders of a profile's own collections. Raises ModelError."""
    texts = open_embedder(profile.embedding, models)
    return Embedders(texts, open_image_embedder(profile.image_encoder, models))


def open_external_embedders(profile: QdrantProfile, models: Models) -> dict[str, Embedder]:
    """By reference, the embedders of external collections, without the profile's own embedder.

    Raises ModelError.
    """
    references = {each.embedding for each in profile.collections.values()}
    return {each: open_embedder(each, models) for each in references - {"", profile.embedding}}


def open_embedder(reference: str, models: Models) -> Embedder:
    """`hashed`, or a text encoder by model reference. Raises ModelError."""
    if reference == "hashed":
        from pipeline.retrieval.lexical import HashedEmbedder

        return HashedEmbedder()
    from pipeline.retrieval.encoders import TextEncoder

    return TextEncoder(reference, models)


def open_image_embedder(reference: str, models: Models) -> ImageEmbedder | None:
    """A CLIP by model reference; None without one. Raises ModelError."""
    if not reference:
        return None
    from pipeline.models.clip import Clip

    return Clip(models, reference, "image_encoder")


def open_library(settings: Settings, profile: Profile) -> "Library":
    """The library that a profile's sources are ingested into.

    Raises ConfigError, ModelError, StoreError and Unavailable.
    """
    from pipeline.retrieval.ingest import Library

    if not isinstance(profile.retrieval, QdrantProfile):
        kind = profile.retrieval.kind
        raise ConfigError(f"retrieval.kind {kind!r} has no library to ingest into")
    models = open_models(settings)
    return Library(
        client=open_knowledge(settings),
        embedders=open_embedders(profile.retrieval, models),
        image_store=ImageStore(open_store(settings), KNOWLEDGE),
        guard=open_guards(profile.guard, profile.clip, models, open_store(settings)),
    )


def open_guards(
    sections: Sequence[GuardProfile],
    judge: ClipJudgeProfile | None,
    models: Models,
    store: Store,
) -> Guards:
    """The guards of a profile, whose first CLIP among the judges is `judge`. Raises ConfigError and
    ModelError.
    """
    texts, images = list[TextGuard](), list[ImageGuard]()
    for each in sections:
        if isinstance(each, TermsGuardProfile):
            texts.append(TextGuard(each.name, each.action, each.in_places, Terms(each.terms).found))
        else:
            told = _image_check(each, judge, models)
            guard = ImageGuard(each.name, each.action, each.in_places, each.threshold, told)
            images.append(guard)
    return Guards(texts, images, ImageStore(store, "").get)


def _image_check(
    section: ConceptGuardProfile | ClassifierGuardProfile,
    judge: ClipJudgeProfile | None,
    models: Models,
) -> ImageCheck:
    if isinstance(section, ClassifierGuardProfile):
        return Classifier(models, section)
    from pipeline.judging.clip import calibration
    from pipeline.models.clip import Clip
    from pipeline.safety.concepts import Concept

    clip = clip_of(section, judge)
    tuned = calibration(clip, models.folder(clip.model, "concept"), "guard")
    return Concept(
        Clip(models, clip.model, "concept", dtype=clip.dtype, batch=section.batch),
        section.concept,
        section.unlike,
        tuned.slope,
        tuned.offset,
    )


def clip_of(section: ConceptGuardProfile, judge: ClipJudgeProfile | None) -> ClipJudgeProfile:
    """The CLIP of a guard: its own or the judge's, with the dtype and calibration that it sets."""
    set_here = {key: getattr(section, key) for key in ("dtype", "slope", "offset")}
    if section.unlike:
        set_here["offset"] = 0.0  # it cancels out
    shared = judge if judge and not section.model else ClipJudgeProfile(model=section.model)
    given = {key: value for key, value in set_here.items() if value is not None}
    return shared.model_copy(update={"name": section.name} | given)


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
        place: _s3_store(settings.model_copy(update={"store": place}))
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


def check_models(settings: Settings, profile: Profile) -> dict[str, Path]:
    """Check every model that the profile needs, without loading it; returns role to folder.

    Raises ModelError for a model that is missing, pickled or truncated, for a ControlNet of another
    model, and for a guard's label that its classifier does not have; ConfigError for a guard's CLIP
    without a calibration, or for a caption that it would cut.
    """
    from pipeline.judging.clip import calibration
    from pipeline.models.loading import tokenizer_of_clip
    from pipeline.models.tokenizers import fits
    from pipeline.safety.concepts import check_captions

    try:
        folders = role_folders(profile, settings.models)
    except ModelError as error:
        if settings.models.is_dir():
            raise
        raise ModelError(
            f"{error.detail}\nPRESSRUN_MODELS: there is no folder {settings.models}; name another."
            " Without PRESSRUN_MODELS the small models that come with Pressrun are used."
        ) from error
    for_each_role(folders, lambda role, folder: verify(folder, role, variant(profile, role)))
    for name, renderer in {"": profile.renderer, **profile.renderers}.items():
        end = f":{name}" if name else ""
        for control in renderer.controls if isinstance(renderer, DiffusersProfile) else ():
            unet = folders.get(f"unet{end}")
            check_fit(folders[f"control:{control}{end}"], folders[f"renderer{end}"], unet)
    for guard in profile.guard:
        if isinstance(guard, ClassifierGuardProfile):
            check_labels(labels(folders[f"guard:{guard.name}"]), guard)
        elif isinstance(guard, ConceptGuardProfile):
            clip = clip_of(guard, profile.clip)
            folder = resolve(clip.model, settings.models, "concept")
            calibration(clip, folder, "guard")
            reads_whole = partial(fits, tokenizer_of_clip(folder))
            check_captions([guard.concept, *guard.unlike], reads_whole)
    return folders


def model_remarks(settings: Settings, profile: Profile) -> list[str]:
    """Sentences on what is loaded of a profile's models in place of what it asks for. Raises
    ModelError.
    """
    said = dict[str, None]()
    for role, folder in role_folders(profile, settings.models).items():
        if role.partition(":")[0] == "renderer":
            said |= dict.fromkeys(remarks(folder, variant(profile, role)))
    return list(said)


def model_digests(settings: Settings, profile: Profile) -> dict[str, str]:
    """Role to digest of every model the profile needs. Raises ModelError."""
    return for_each_role(
        check_models(settings, profile),
        lambda role, folder: digest(folder, role, variant(profile, role), settings.digests),
    )
