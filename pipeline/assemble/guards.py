"""The guards of a profile."""

from collections.abc import Sequence

from pipeline.media.image_store import ImageStore
from pipeline.models import Models
from pipeline.ports import Store
from pipeline.profile import (
    ClassifierGuardProfile,
    ClipJudgeProfile,
    ConceptGuardProfile,
    EndpointGuardProfile,
    GuardProfile,
    TermsGuardProfile,
)
from pipeline.safety.classifier import Classifier
from pipeline.safety.guards import Guards, ImageCheck, ImageGuard, TextGuard
from pipeline.safety.moderation import Moderation
from pipeline.safety.terms import Terms
from pipeline.settings import Settings


def open_guards(
    sections: Sequence[GuardProfile],
    judge: ClipJudgeProfile | None,
    models: Models,
    store: Store,
    settings: Settings,
) -> Guards:
    """The guards of a profile, whose first CLIP among the judges is `judge`. Raises ConfigError and
    ModelError.
    """
    texts, images = list[TextGuard](), list[ImageGuard]()
    for each in sections:
        known = each.name, each.action, each.in_places
        match each:
            case TermsGuardProfile():
                texts.append(TextGuard(*known, Terms(each.terms).reason))
            case EndpointGuardProfile():
                server = Moderation(settings, each)
                rule = f"{each.name}: no {', '.join(each.categories)}" if each.categories else ""
                texts.append(TextGuard(*known, server.found, rule))
                images.append(ImageGuard(*known, each.threshold, server))
            case _:
                told = _image_check(each, judge, models)
                images.append(ImageGuard(*known, each.threshold, told))
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
