"""A pipeline's scheduler, with the class and the settings that a profile gives it."""

from collections.abc import Mapping
from copy import deepcopy
from inspect import Parameter, signature
from typing import Any

import diffusers

from pipeline.errors import ModelError

UNSEEDED = ("CosineDPMSolverMultistepScheduler", "DPMSolverSDEScheduler")
"""Schedulers that draw noise from a Brownian tree of their own, which no row's seed decides."""

UNREAD: Mapping[str, frozenset[str]] = {
    "LCMScheduler": frozenset({"steps_offset", "timestep_spacing"}),
    "TCDScheduler": frozenset(
        {
            "clip_sample", "clip_sample_range", "steps_offset", "thresholding",
            "timestep_scaling", "timestep_spacing",
        }
    ),
}  # fmt: skip
"""Settings that a class takes and never reads."""

ETA = "eta"
"""The part of fresh noise in DDIM's and TCD's steps. In diffusers it is an argument of a call."""
PROFILES_ETA = "profile_eta"
"""Its name in a scheduler's configuration: diffusers does not read one that a model has there."""


def configured(scheduler: Any, name: str, settings: Mapping[str, Any]) -> Any:
    """The scheduler, or one of diffusers' class `name` in its place, with `settings` over those of
    the model. Raises ModelError for an unknown class, for one whose noise has no seed, and for a
    setting or value that means nothing to it.
    """
    cls: Any = type(scheduler)
    if name and name not in UNSEEDED:
        cls = getattr(diffusers, name, None)
        if lacking := getattr(cls, "_backends", ()):
            raise ModelError(f"{name} needs packages that are not all here: {', '.join(lacking)}")
        if not isinstance(cls, type) or not issubclass(cls, diffusers.SchedulerMixin):
            raise ModelError(f"diffusers has no scheduler {name!r}")
    if (unseeded := name or cls.__name__) in UNSEEDED:
        raise ModelError(
            f"{unseeded} draws noise that a row's seed does not decide: use "
            "DPMSolverMultistepScheduler with algorithm_type = 'sde-dpmsolver++' instead"
        )
    if not name and not settings:
        return scheduler
    _check_settings(cls, settings)
    own = {key: value for key, value in settings.items() if key != ETA}
    try:
        made = cls.from_config(scheduler.config, **own)
        if settings:
            # it reads some of them no sooner
            shifted = "mu" in signature(made.set_timesteps).parameters
            shifted = shifted and made.config.get("use_dynamic_shifting")
            deepcopy(made).set_timesteps(1, **({"mu": 1.0} if shifted else {}))
    except (ArithmeticError, AssertionError, ImportError, TypeError, ValueError) as error:
        raise ModelError(f"{cls.__name__} refuses its settings: {error}") from error
    for key, value in own.items():
        if made.config[key] != value:
            # such as a solver of another class
            raise ModelError(f"{_named(key, value)} means nothing to {cls.__name__}")
    if ETA in settings:
        made.register_to_config(**{PROFILES_ETA: settings[ETA]})
    return made


def eta_of(scheduler: Any) -> float:
    """The `eta` that a profile gave to a scheduler."""
    eta: float = getattr(scheduler, "config", {}).get(PROFILES_ETA, 0.0)
    return eta


def _check_settings(cls: Any, settings: Mapping[str, Any]) -> None:
    """Raise ModelError for a setting that a scheduler's class does not know, or of another type."""
    name = cls.__name__
    known = dict(signature(cls.__init__).parameters)
    known = {key: each for key, each in known.items() if key not in UNREAD.get(name, ())}
    known.pop("self")
    if ETA in signature(cls.step).parameters:
        known[ETA] = Parameter(ETA, Parameter.KEYWORD_ONLY, default=0.0)
    for key, value in settings.items():
        if key not in known:
            there = ", ".join(sorted(known))
            raise ModelError(f"renderer.scheduler_settings.{key}: {name} has {there}")
        default = known[key].default
        if default is not None and _kind(value) != _kind(default):
            raise ModelError(f"{_named(key, value)} has to be {_kind(default)}")
    if not 0 <= settings.get(ETA, 0) <= 1:
        raise ModelError(f"{_named(ETA, settings[ETA])} is not within 0 and 1")


def _kind(value: object) -> str:
    """The type of a value. A scheduler would not complain of another one: any text is true."""
    if isinstance(value, bool):
        return "true or false"
    return "a text" if isinstance(value, str) else "a number"


def _named(key: str, value: Any) -> str:
    return f"renderer.scheduler_settings.{key} = {value!r}"
