"""A profile's scheduler and its settings: taken as they are meant, or refused by name."""

import ast
import inspect
import textwrap
from typing import Any

import diffusers
import pytest

from pipeline.errors import ModelError
from pipeline.models.schedulers import UNREAD, configured, eta_of
from pipeline.rendering.schedulers import CALLS

READ_BY_PIPELINES = {"base_image_seq_len", "base_shift", "max_image_seq_len", "max_shift"}


def test_settings_take_the_place_of_the_models_own() -> None:
    own = diffusers.EulerDiscreteScheduler(beta_end=0.012, timestep_spacing="leading")
    assert configured(own, "", {}) is own
    same = configured(own, "", {"timestep_spacing": "trailing", "steps_offset": 1})
    assert type(same) is type(own)
    assert (same.config.timestep_spacing, same.config.beta_end) == ("trailing", 0.012)
    other = configured(own, "TCDScheduler", {"eta": 0.3, "original_inference_steps": 40})
    assert (eta_of(other), other.config.original_inference_steps) == (0.3, 40)
    assert (other.config.beta_end, eta_of(own)) == (0.012, 0.0)


def test_an_eta_among_a_models_own_settings_is_not_read_as_diffusers_does_not() -> None:
    own = diffusers.DDIMScheduler.from_config({"eta": 0.7})
    assert own.config.eta == 0.7
    assert eta_of(configured(own, "", {})) == 0
    assert eta_of(configured(own, "TCDScheduler", {})) == 0
    assert eta_of(configured(own, "", {"eta": 0.3})) == 0.3


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("NoSuchScheduler", {}, "diffusers has no scheduler 'NoSuchScheduler'"),
        ("DPMSolverSDEScheduler", {}, "draws noise that a row's seed does not decide"),
        ("", {"timestep_spacings": "trailing"}, r"timestep_spacings: EulerDiscreteScheduler has "),
        ("", {"self": "a"}, "settings.self: EulerDiscreteScheduler has "),
        ("", {"eta": 0.3}, "settings.eta: EulerDiscreteScheduler has "),
        ("LCMScheduler", {"timestep_spacing": "trailing"}, "timestep_spacing: LCMScheduler has "),
        ("", {"use_karras_sigmas": "no"}, "use_karras_sigmas = 'no' has to be true or false"),
        ("", {"use_karras_sigmas": 1}, "use_karras_sigmas = 1 has to be true or false"),
        ("", {"beta_end": "0.012"}, "beta_end = '0.012' has to be a number"),
        ("", {"timestep_spacing": "sgm_uniform"}, "sgm_uniform is not supported"),
        ("", {"use_karras_sigmas": True, "use_exponential_sigmas": True}, "Only one of"),
        ("", {"steps_offset": True}, "steps_offset = True has to be a number"),
        (
            "DPMSolverMultistepScheduler",
            {"solver_type": "bh2"},
            "solver_type = 'bh2' means nothing",
        ),
        ("LCMScheduler", {"original_inference_steps": 0}, "LCMScheduler refuses its settings"),
        ("TCDScheduler", {"eta": 1.5}, "eta = 1.5 is not within 0 and 1"),
    ],
)
def test_what_means_nothing_to_a_scheduler_is_refused_by_name(
    name: str, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem):
        configured(diffusers.EulerDiscreteScheduler(), name, settings)


def test_a_scheduler_without_its_packages_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    dummy = type("SlowScheduler", (), {"_backends": ["torch", "slowsolver"]})
    monkeypatch.setattr(diffusers, "SlowScheduler", dummy, raising=False)
    with pytest.raises(ModelError, match="needs packages that are not all here: torch, slowsolver"):
        configured(diffusers.EulerDiscreteScheduler(), "SlowScheduler", {})


def test_a_models_own_scheduler_is_refused_where_no_seed_decides_its_noise() -> None:
    own = type("DPMSolverSDEScheduler", (), {})()
    with pytest.raises(ModelError, match="draws noise that a row's seed does not decide"):
        configured(own, "", {})


@pytest.mark.parametrize("name", CALLS)
def test_settings_that_a_class_never_reads_are_known(name: str) -> None:
    """In its source, where its constructor's names are read as attributes or as themselves."""
    cls = getattr(diffusers, name)
    read = set[str]()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls)))):
        if isinstance(node, ast.Attribute):
            read.add(node.attr)
        elif isinstance(node, ast.Name):
            read.add(node.id)
    taken = set(inspect.signature(cls.__init__).parameters) - {"self"}
    assert taken - read - READ_BY_PIPELINES == UNREAD.get(name, frozenset())
