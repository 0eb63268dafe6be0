"""The shipped profiles load, and every key is documented with its default."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.profile import PROFILES, CollectionProfile, Profile

DOCUMENT = Path("docs/profiles.md").read_text(encoding="utf-8")
NAMES = sorted(path.stem for path in PROFILES.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_profile_loads_and_is_listed(name: str) -> None:
    assert Profile.load(name).name == name
    assert f"| `{name}` |" in DOCUMENT


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("shapes")])
def test_profiles_for_real_models_say_how_a_cosine_is_read(name: str) -> None:
    judge = Profile.load(name).judge
    assert judge.slope is not None
    assert judge.offset is not None


def test_every_key_is_documented_with_its_default_and_no_other() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (.*?) \|", DOCUMENT, re.MULTILINE))
    expected = {
        f"{table}.{key}": _shown(field.get_default(), field.is_required())
        for table, section in Profile.model_fields.items()
        if isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel)
        for key, field in section.annotation.model_fields.items()
    }
    assert rows == expected


def test_every_key_of_a_collection_is_documented_with_its_default_and_no_other() -> None:
    key = r"^\| `retrieval\.collections\.NAME\.([a-z_]+)` \| (.*?) \|"
    assert dict(re.findall(key, DOCUMENT, re.MULTILINE)) == {
        name: _shown(field.get_default(), field.is_required())
        for name, field in CollectionProfile.model_fields.items()
    }


def _shown(default: object, required: bool) -> str:
    if required:
        return "required"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple) and default:
        default = "[" + ", ".join(_inline(item) for item in default) + "]"
    return f"`{default}`" if default not in (None, "", (), {}) else "empty"


def _inline(item: BaseModel) -> str:
    """As TOML has it."""
    return "{ " + ", ".join(f"{key} = {value}" for key, value in item) + " }"


def test_the_documents_own_profile_loads(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    path = tmp_path / "shop.toml"
    path.write_text(example, encoding="utf-8")
    shop, sdxl = Profile.load(str(path)), Profile.load("sdxl")
    assert shop.name == "shop"
    assert shop.judge.slope == sdxl.judge.slope
    assert shop.renderer.model != sdxl.renderer.model
