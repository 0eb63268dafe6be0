"""A run's models are checked before it, all that a worker would refuse."""

from pathlib import Path

import pytest

from pipeline.assemble.models import check_models
from pipeline.errors import ConfigError
from pipeline.settings import SHIPPED_MODELS, load_settings

SECOND = '[[judge]]\n[[judge]]\nname = "second"\n'


@pytest.mark.parametrize("judges", ["[[judge]]\n", SECOND])
@pytest.mark.parametrize(
    ("held", "keys", "told"),
    [
        (None, "", "set slope and offset of the judge '{name}'"),
        (None, "offset = 0.0", "set slope of the judge '{name}'"),
        ("{}", "slope = 9.0", "calibration.json must hold the numbers slope and offset"),
        (None, "slope = 9.0\noffset = 0.0", ""),
        ('{"slope": 9, "offset": 0}', "", ""),
    ],
)
def test_a_judge_without_calibration_is_refused_before_a_run(
    tmp_path: Path, judges: str, held: str | None, keys: str, told: str
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in (SHIPPED_MODELS / "open_clip").iterdir():
        if file.name != "calibration.json":
            (bare / file.name).symlink_to(file)
    if held:
        (bare / "calibration.json").write_text(held, encoding="utf-8")
    profile = tmp_path / "mine.toml"
    text = f'extends = "shapes"\n{judges}model = "{bare}"\n{keys}\n'
    profile.write_text(text, encoding="utf-8")
    settings = load_settings(home=tmp_path, store=str(tmp_path / "out"), profile=str(profile))
    if not told:
        assert bare in check_models(settings, settings.chosen_profile).values()
        return
    name = "second" if judges == SECOND else settings.chosen_profile.judge[0].name
    with pytest.raises(ConfigError, match=told.format(name=name)):
        check_models(settings, settings.chosen_profile)
