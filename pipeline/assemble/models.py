"""The settings' models, and checks of those that a profile needs."""

from functools import partial
from pathlib import Path

from pipeline.assemble.guards import clip_of
from pipeline.errors import ModelError
from pipeline.models import Models, digest, for_each_role, remarks, role_folders, variant, verify
from pipeline.models.controlnets import check_fit
from pipeline.models.files import resolve
from pipeline.profile import (
    ClassifierGuardProfile,
    ClipJudgeProfile,
    ConceptGuardProfile,
    DiffusersProfile,
    Profile,
)
from pipeline.safety.classifier import check_classifier
from pipeline.settings import Settings


def open_models(settings: Settings) -> Models:
    """The models that the settings name, on their device."""
    limit = settings.renderer_memory_mb << 20
    return Models(settings.models, settings.device, settings.digests, limit)


def check_models(settings: Settings, profile: Profile) -> dict[str, Path]:
    """Check every model that the profile needs, without loading it; returns role to folder.

    Raises ModelError for a model that is missing, pickled or truncated, for a ControlNet of another
    model, and for a guard's label that its classifier does not have; ConfigError for the CLIP
    of a judge or a guard without a calibration, or for a guard's caption that it would cut.
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
    for judge in profile.judge:
        if isinstance(judge, ClipJudgeProfile):
            calibration(judge, resolve(judge.model, settings.models, "judge"))
    for guard in profile.guard:
        if isinstance(guard, ClassifierGuardProfile):
            check_classifier(folders[f"guard:{guard.name}"], guard)
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
