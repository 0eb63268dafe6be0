from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.job import BadRow, Job, Prior, digest_of
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.identity import profile_digest
from pipeline.jobfile.rows import RawRow
from pipeline.judging.questions_endpoint import QuestionsEndpointJudgeProfile
from pipeline.media.inputs import InputReader
from pipeline.profile import CollectionProfile, ImageAdapterProfile, Profile, TermsGuardProfile


def test_defaults_of_the_profile(read_one, profile) -> None:
    job = read_one({"keywords": "red circle"})
    assert isinstance(job, Job)
    wanted = profile.defaults.model_dump(exclude={"seed"})
    assert job.model_dump(include=set(wanted)) == wanted
    assert (job.priority, job.name, job.meta) == (5, "", {})


def test_row_before_override_before_profile(read_one, profile) -> None:
    overrides = {"candidates": 6, "threshold": 0.9, "collection": "theirs"}
    plain = read_one({"keywords": "a"}, **overrides)
    assert (plain.candidates, plain.threshold, plain.collection) == (6, 0.9, "theirs")
    own = read_one({"keywords": "a", "candidates": 1, "collection": "mine"}, **overrides)
    assert (own.candidates, own.threshold, own.collection) == (1, 0.9, "mine")
    assert plain.passages == profile.defaults.passages


def test_without_retrieval_no_row_retrieves(read_one) -> None:
    row = {"keywords": "a", "collection": "mine", "passages": 4, "references": 2}
    without, with_ = read_one(row, retrieval=False), read_one(row)
    assert (without.passages, without.references, without.collection) == (0, 0, "")
    assert (with_.passages, with_.references, with_.collection) == (4, 2, "mine")
    assert without.seed == with_.seed
    assert without.id != with_.id


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("candidates", "many", "'many' is not a whole number"),
        ("candidates", "0", "'0' should be greater than or equal to 1"),
        ("candidates", "65", "'65' should be less than or equal to 64"),
        ("candidates", "2.5", "'2.5' is not a whole number"),
        ("steps", "1,000", "no thousands separators"),
        ("steps", "1.000,5", "no thousands separators"),
        ("guidance", "7,5", "write a decimal point"),
        ("guidance", "nan", "'nan' is not a number"),
        ("guidance", "1e999", "should be"),
        ("guidance", "0x10", "is not a number"),
        ("guidance", "٣", "is not a number"),
        ("guidance", 10**400, "too large"),
        ("threshold", "80%", "is not a number"),
        ("threshold", 1.5, "'1.5' should be less than or equal to 1"),
        ("width", "65", "multiple of 8"),
        ("seed", "-2", "greater than or equal to 0"),
        ("seed", 2**64, "less than 18446744073709551616"),
        ("mode", "magic", "should be 'generated', 'retrieved' or 'keywords'"),
        (
            "contest",
            "Best_of",
            "should be 'best_of', 'first_above', 'stop', 'race', 'race_above' or 'draft'",
        ),
        ("priority", 10, "less than or equal to 9"),
        ("references", 9, "less than or equal to 8"),
        ("rounds", "4", "less than or equal to 3"),
        (
            "rounds",
            "2",
            "it needs writer.checks in the profile, or writer.questions there and an edit_strength "
            "above 0, or a collection, references of 1 or more, and a reference_scale above 0",
        ),
        ("edit_strength", "1", "less than 1"),
        ("reference_scale", "1.1", "less than or equal to 1"),
        ("needs_context", "maybe", "'maybe' is neither true nor false"),
        ("collection", "../../etc/passwd", "no path and no address"),
        ("collection", "/etc/passwd", "no path and no address"),
        ("collection", "..", "no path and no address"),
        ("collection", "https://example.com/x", "no path and no address"),
        ("collection", "C:\\brands", "no path and no address"),
        ("collection", "brands/../x", "no path and no address"),
        ("collection", "b" * 101, "at most 100"),
        ("collection", "two words", "no plain name"),
        ("style", "a\x00b", "U+0000 is not allowed"),
        ("style", "a\u202eb", "U+202E is not allowed"),
        ("style", "x" * 2049, "longer than 2048 bytes"),
        ("style", "é" * 1025, "longer than 2048 bytes"),
        ("meta.x", "\x1b[31m", "U+001B is not allowed"),
        ("keywords", " \t ", "keywords is empty"),
        ("keywords", "{|}", "keywords is empty after its choices"),
        ("keywords", "{red", "never closed"),
        ("keywords", "${meta.x}", "this row has no meta.x"),
    ],
)
def test_a_bad_value_is_named_with_its_reason(read_one, column, value, reason) -> None:
    bad = read_one({"keywords": "red circle", column: value})
    assert isinstance(bad, BadRow)
    assert bad.column == column
    assert reason in bad.reason
    assert bad.reason.isprintable()


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("candidates", "4.0", 4),
        ("candidates", " 3 ", 3),
        ("seed", "+12", 12),
        ("seed", 4294967295, 4294967295),
        ("guidance", ".5", 0.5),
        ("guidance", "1e1", 10.0),
        ("guidance", 3, 3.0),
        ("style", "  two\t words\n", "two words"),
        ("style", "Cafe\u0301", "Café"),
        ("negative", 12, "12"),
        ("mode", "keywords", "keywords"),
        ("collection", " brands_2.old-1 ", "brands_2.old-1"),
        ("collection", " ", ""),
        ("contest", "first_above", "first_above"),
        ("priority", "0", 0),
        ("references", "2", 2),
        ("reference_scale", ".25", 0.25),
        ("tags", " brand | new|brand||", ("brand", "new")),
        ("licenses", "CC0", ("CC0",)),
        ("needs_context", "No", False),
    ],
)
def test_a_value_is_read_in_its_columns_type(read_one, column, value, wanted) -> None:
    job = read_one({"keywords": "red circle", column: value})
    assert isinstance(job, Job)
    assert getattr(job, column) == wanted


def test_the_rows_own_id_is_its_name(read_one) -> None:
    assert read_one({"keywords": "a", "id": "row-7"}).name == "row-7"


@pytest.mark.parametrize(
    "other",
    [{"style": "b"}, {"seed": 3}, {"steps": 9}, {"id": "x"}, {"meta.a": "b"}, {"passages": 1}],
)
def test_other_work_has_another_id(read_one, other) -> None:
    assert read_one({"keywords": "a"}).id != read_one({"keywords": "a"} | other).id


def test_an_id_is_the_digest_of_the_fields_and_of_the_profile(read_one, profile) -> None:
    row = {"keywords": 'a, "b" ü', "candidates": 4, "guidance": 3, "meta.x": "y", "tags": ["t"]}
    job = read_one(row | {"priority": 1, "id": "mine"})
    fields = job.model_dump(
        mode="json", exclude_unset=True, exclude={"id", "row", "priority", "model"}
    )
    assert job.id == digest_of([fields, profile_digest(profile)])


def test_place_and_priority_are_no_part_of_the_id(read) -> None:
    one, two = read("keywords,priority\n{red|blue|green} ring,\n{red|blue|green} ring,0\n")
    assert (one.id, one.seed, one.keywords) == (two.id, two.seed, two.keywords)


def test_equal_bad_rows_have_different_ids(read) -> None:
    one, two = read("keywords,steps\nring,x\nring,x\n")
    assert one.id != two.id
    assert one.keywords == "ring"


def test_other_settings_keep_the_seed_and_change_the_id(profile) -> None:
    def changed(**update: object) -> Profile:
        return profile.model_copy(update=update)

    def job(profile: Profile) -> Job:
        made = JobBuilder(profile, Overrides()).build(RawRow(1, {"keywords": "red circle"}))
        assert isinstance(made, Job)
        return made

    slower = changed(renderer=profile.renderer.model_copy(update={"batch": 1}))
    renamed = changed(name="other")
    other = changed(renderer=profile.renderer.model_copy(update={"unet": "draft-unet"}))
    assert job(profile).id == job(slower).id == job(renamed).id
    assert job(profile).id != job(other).id
    assert job(profile).seed == job(other).seed
    assert profile_digest(profile) != profile_digest(other)


def test_a_judge_counts_but_for_its_name_and_batch(profile) -> None:
    def digest(**update: object) -> str:
        judge = profile.judge[0].model_copy(update=update)
        return profile_digest(profile.model_copy(update={"judge": (judge,)}))

    assert digest(batch=1, name="eye") == profile_digest(profile)
    updates = ({}, {"weight": 0.5}, {"against": "text"}, {"slope": 3.0})
    assert len({digest(**update) for update in updates}) == len(updates)


def test_a_guard_counts_by_its_name_where_the_writer_is_told_it(profile) -> None:
    def digest(**keys: Any) -> str:
        guard = TermsGuardProfile(terms=("skull",), **keys)
        return profile_digest(profile.model_copy(update={"guard": (guard,)}))

    assert digest(name="bones") == digest(name="bones-off")
    rewriting = {digest(name=name, action="rewrite") for name in ("bones", "bones-off")}
    assert len(rewriting) == 2


def test_a_collection_counts_whatever_its_name(profile) -> None:
    def digest(name: str, tool: str) -> str:
        named = {name: CollectionProfile(written_by=tool)}
        retrieval = profile.retrieval.model_copy(update={"collections": named})
        return profile_digest(profile.model_copy(update={"retrieval": retrieval}))

    for name in ("brands", "defaults"):
        assert digest(name, "haystack") != digest(name, "langchain") != profile_digest(profile)


@pytest.mark.parametrize(
    ("row", "overrides", "fits"),
    [
        ({}, {}, True),
        ({"collection": "ours"}, {}, True),
        ({"collection": "theirs"}, {}, False),
        ({"collection": "OURS"}, {}, False),
        ({"collection": "theirs", "passages": 0}, {}, False),
        ({}, {"collection": "theirs"}, False),
        ({"collection": "ours"}, {"collection": "theirs"}, True),
        ({"collection": "theirs"}, {"retrieval": False}, True),
    ],
)
def test_only_allowed_collections_are_asked(profile, row, overrides, fits) -> None:
    retrieval = profile.retrieval.model_copy(update={"allowed": ("ours",)})
    held = profile.model_copy(update={"retrieval": retrieval})
    made, free = (
        JobBuilder(each, Overrides(**overrides)).build(RawRow(7, {"keywords": "a"} | row))
        for each in (held, profile)
    )
    if fits:
        assert made == free  # with the id that it has without a list
        return
    assert isinstance(made, BadRow)
    assert (made.row, made.column) == (7, "collection")
    assert "retrieval.allowed" in made.reason


def test_a_profiles_seed_is_every_rows_seed(profile) -> None:
    defaults = profile.defaults.model_copy(update={"seed": 11})
    builder = JobBuilder(profile.model_copy(update={"defaults": defaults}), Overrides())
    assert builder.build(RawRow(1, {"keywords": "a"})).seed == 11
    assert builder.build(RawRow(1, {"keywords": "b", "seed": 3})).seed == 3


def test_images_that_could_not_steer_are_refused(profile) -> None:
    renderer = profile.renderer.model_copy(update={"image_adapter": ""})
    builder = JobBuilder(profile.model_copy(update={"renderer": renderer}), Overrides())
    bad = builder.build(RawRow(1, {"keywords": "a", "references": 1}))
    assert isinstance(bad, BadRow)
    assert (bad.column, "image adapter" in bad.reason) == ("references", True)
    for harmless in ({"references": 1, "reference_scale": 0}, {"references": 0}):
        assert isinstance(builder.build(RawRow(1, {"keywords": "a"} | harmless)), Job)


@pytest.mark.parametrize("name", ["name", "batch", "offload", "look"])
def test_an_adapters_name_is_no_setting_without_effect(profile, name: str) -> None:
    def adapted(model: str) -> Profile:
        adapters = {name: ImageAdapterProfile(model=model)}
        renderer = profile.renderer.model_copy(update={"image_adapter": adapters})
        return profile.model_copy(update={"renderer": renderer})

    assert profile_digest(adapted("a")) != profile_digest(adapted("b"))


def test_how_a_judges_server_is_called_changes_no_id(profile) -> None:
    def judged(**keys: Any) -> Profile:
        judge = QuestionsEndpointJudgeProfile(**{"model": "m"} | keys)
        return profile.model_copy(update={"judge": (judge,)})

    assert profile_digest(judged()) == profile_digest(judged(timeout=9, at_once=3))
    assert profile_digest(judged()) != profile_digest(judged(model="n"))


def test_a_stop_without_a_prior_is_refused_with_the_way_to_one(read_one) -> None:
    bad = read_one({"keywords": "a", "contest": "stop"})
    assert isinstance(bad, BadRow)
    assert bad.column == "contest"
    assert "defaults.prior" in bad.reason
    assert "pressrun calibrate stop JOBS" in bad.reason


def test_a_profile_whose_default_is_a_stop_needs_a_prior(profile) -> None:
    def stopping(**more: Any) -> Profile:
        defaults = profile.defaults.model_copy(update={"contest": "stop"} | more)
        return profile.model_copy(update={"defaults": defaults})

    with pytest.raises(ConfigError, match=r"defaults\.contest: .*defaults\.prior.*calibrate stop"):
        JobBuilder(stopping(), Overrides())
    prior = Prior(mean=-1, between=2, within=1)
    row = RawRow(2, {"keywords": "a"})
    job = JobBuilder(stopping(prior=prior), Overrides()).build(row)
    assert isinstance(job, Job)
    assert (job.contest, job.prior, job.stop_below, job.wave) == ("stop", prior, 0.02, 1)
    other = prior.model_copy(update={"mean": -2.0})
    assert JobBuilder(stopping(prior=other), Overrides()).build(row).id != job.id


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        ({"draft_steps": 20}, "draft_steps", "of 20 steps and 2 survivors take 200 steps, and"),
        ({"draft_steps": 15}, "draft_steps", "and the 8 candidates without drafts 160: name"),
        ({"draft_steps": 1, "survivors": 8}, "draft_steps", "take 168 steps"),
        ({"candidates": 1, "survivors": 1}, "draft_steps", "take 28 steps"),
    ],
)
def test_drafts_that_save_no_steps_are_refused(read_one, row, column, reason) -> None:
    bad = read_one({"keywords": "a", "contest": "draft", "candidates": 8} | row)
    assert isinstance(bad, BadRow)
    assert (bad.column, reason in bad.reason) == (column, True), bad.reason


def test_drafts_that_save_a_step_are_not_refused(read_one) -> None:
    job = read_one({"keywords": "a", "contest": "draft", "candidates": 8, "draft_steps": 14})
    assert isinstance(job, Job)
    assert (job.contest, job.draft_steps, job.survivors, job.steps) == ("draft", 14, 2, 20)


def test_a_part_of_the_steps_that_a_draft_has_no_step_in_is_refused(
    tmp_path: Path, profile: Profile
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    inputs = InputReader([tmp_path])
    builder = JobBuilder(profile, Overrides(candidates=8), inputs=inputs)

    def built(**values: Any) -> Job | BadRow:
        return builder.build(
            RawRow(2, {"keywords": "a", "image": str(tmp_path / "a.png")} | values)
        )

    for columns in (
        {"strength": 0.1},
        {"control": "canny", "control_image": str(tmp_path / "a.png"), "control_from": 0.9},
    ):
        assert isinstance(built(**columns), Job)
        bad = built(contest="draft", draft_steps=4, **columns)
        assert isinstance(bad, BadRow), columns
        assert "4 steps" in bad.reason or "of 3 steps" in bad.reason
