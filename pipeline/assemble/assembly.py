"""The implementations of one process, shared by its runs."""

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TypeVar

from pipeline.assemble.guards import open_guards
from pipeline.assemble.knowledge import open_image_embedder, open_knowledge
from pipeline.assemble.models import open_models
from pipeline.assemble.renderers import RendererLoader
from pipeline.assemble.stores import open_store_to_commit
from pipeline.errors import JobError, ModelError, RunError
from pipeline.job import Context, Embedding, ImageArray
from pipeline.judging.panel import Panel
from pipeline.media.image_store import INPUTS, KNOWLEDGE, ImageStore
from pipeline.media.inputs import StoredInputs
from pipeline.models import digests_of, references, variant
from pipeline.ports import Judge, Ports, Renderer, Retriever, Writer
from pipeline.profile import (
    JUDGES,
    RETRIEVERS,
    DiffusersProfile,
    EndpointWriterProfile,
    JudgeProfile,
    LocalWriterProfile,
    Profile,
    QdrantProfile,
    RetrievalProfile,
    TemplateWriterProfile,
    WriterProfile,
    profile_of,
)
from pipeline.record import RunSpec
from pipeline.records.run_folder import RunFolder
from pipeline.rendering.pool import ModelRenderer, RendererPool
from pipeline.retrieval.embedders import embedding
from pipeline.retrieval.images import embedded
from pipeline.settings import Settings

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

Made = TypeVar("Made")

PATIENCE = 5.0
"""Seconds for which a worker waits for a knowledge base that another process holds; a command that
only reads it is done by then.
"""


class Assembly:
    """The implementations of one process, each made once and shared by all runs until `close`."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._open = settings, ExitStack()
        self._store = open_store_to_commit(settings)
        self.models = self._kept(open_models(settings))
        self._opening = threading.Lock()
        self._client = cache(lambda: self._kept(open_knowledge(settings, PATIENCE)))
        self._retriever: Callable[[RetrievalProfile], Retriever] = cache(
            lambda profile: self._kept(
                resolve_name(RETRIEVERS[profile.kind].made_by)(
                    self.models, self._knowledge, profile
                )
            )
        )
        self._image_embedder = cache(lambda reference: open_image_embedder(reference, self.models))
        self._writer = cache(lambda profile: self._kept(self._make_writer(profile)))
        self.renderers = self._kept(RendererPool(RendererLoader(settings, self.models)))
        self._guards = cache(
            lambda sections, clip: self._kept(
                open_guards(sections, clip, self.models, self._store, settings)
            )
        )
        self._judge: Callable[[JudgeProfile], Judge] = cache(self._make_judge)

    def close(self) -> None:
        """Close what was opened, the last one first: threads, connections, and the lock of a local
        knowledge base. No call runs, and none follows.
        """
        self._open.close()

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
        judge: Judge = self._kept(resolve_name(plug.made_by)(given, profile))
        return judge

    def _kept(self, made: Made) -> Made:
        """The implementation, closed with this assembly if it has a `close`."""
        if close := getattr(made, "close", None):
            self._open.callback(close)
        return made

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
