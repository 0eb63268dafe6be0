"""Whatever lies in the inbox, the good file beside it is taken in the same look."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Failed, Running

from flows import inbox as inboxes
from flows.inbox import Inbox
from flows.runs.open import open_run
from pipeline.assemble.stores import open_run_folder
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.jobfile.reading import SUFFIX
from pipeline.settings import Settings, load_settings
from tests.harness.servers import moto_s3

JOBS = b"keywords\nred circle\n"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(inboxes, "PAUSE", 0.0)
    (tmp_path / "in").mkdir()
    (tmp_path / "brand.toml").write_text('extends = "shapes"\n')
    return load_settings(
        inbox=str(tmp_path / "in"),
        store=str(tmp_path / "out"),
        inbox_profiles=str(tmp_path / "brand.toml"),
    )


def look(settings: Settings, files: dict[bytes, bytes] | None = None) -> dict[str, str]:
    """The reasons in failed/ by the file, once a good file and these were looked at."""
    box = Path(settings.inbox)
    for name, data in ({b"good.csv": JOBS} | (files or {})).items():
        (box / os.fsdecode(name)).write_bytes(data)
    Inbox(settings).claim()
    assert [path.name for path in box.glob("working/*/good.csv")] == ["good.csv"]
    assert not [path for path in box.iterdir() if path.suffix in (".csv", ".json", ".toml")]
    events = [json.loads(path.read_text()) for path in box.glob("failed/*.summary.json")]
    for path in box.glob("failed/*"):
        assert len(os.fsencode(path.name)) < 240
        assert path.name.isprintable()
    return {event["file"]: event["reason"] for event in events}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({b"a.json": b"[" * 60_000}, "nested too deep"),
        ({b"a.toml": b"x=" + b"[" * 60_000}, "nested too deep"),
        ({b"a.json": b"9" * 5_000}, "digits"),
        ({b"a.json": b'{"collection": "\\ud800"}'}, "collection"),
        ({b"a.json": b'{"run": "\\ud800"}'}, "surrogates"),
        ({b"a.json": b'{"run": "../../x"}'}, ""),
        ({b"a.json": b" " * 70_000 + b"{}"}, "longer than 64 KB"),
        ({b"a.json": b"\xff"}, "utf-8"),
        ({b"a.toml": b'profile = "../evil.toml"'}, "PRESSRUN_INBOX_PROFILES"),
        ({b"a.toml": b'profile = "evil.toml"'}, "PRESSRUN_INBOX_PROFILES"),
        ({b"a.toml": b'profile = "/etc/passwd"'}, "PRESSRUN_INBOX_PROFILES"),
    ],
)
def test_a_file_of_bad_options_is_refused_with_the_reason(
    settings: Settings, files: dict[bytes, bytes], reason: str
) -> None:
    found = look(settings, {b"a.csv": JOBS, **files})
    assert set(found) == {"a.csv"}
    assert reason in found["a.csv"]


@pytest.mark.parametrize(
    "name", [b"\xff.csv", b"a\\b.csv", b"a\nb.csv", b"a" * 244 + b".csv", b"\xff\xfe.json"]
)
def test_a_name_that_no_store_takes(settings: Settings, name: bytes) -> None:
    (reason,) = look(settings, {name: JOBS}).values()
    assert "its name" in reason
    assert len(list(Path(settings.inbox, "failed").iterdir())) == 2


def test_pipes_links_and_folders_are_refused(settings: Settings, tmp_path: Path) -> None:
    box = Path(settings.inbox)
    os.mkfifo(box / "pipe.csv")
    (box / "leak.csv").symlink_to("/etc/passwd")
    (box / "endless.csv").symlink_to("/dev/zero")
    (box / "nowhere.json").symlink_to(tmp_path / "none")
    (box / "nowhere.csv").write_bytes(JOBS)
    (box / "folder.d").mkdir()
    found = look(settings)
    assert set(found) == {"pipe.csv", "leak.csv", "endless.csv", "nowhere.json", "nowhere.csv"}
    assert all("not a file" in reason for reason in found.values())


def test_two_of_a_name_in_one_second_are_both_kept(settings: Settings) -> None:
    box = Path(settings.inbox)
    for _ in range(3):
        (box / "a.csv").write_bytes(JOBS)
        (box / "a.json").write_bytes(b"{bad")
        Inbox(settings).claim()
    assert len(list(box.glob("failed/*.summary.json"))) == 3
    assert len(list(box.glob("failed/*-a.csv"))) == 3
    assert len(list(box.glob("failed/*-a.json"))) == 3


@pytest.mark.parametrize("profile", ["sdxl", "brand"])
def test_a_profile_that_is_listed(settings: Settings, profile: str) -> None:
    files = {b"a.csv": JOBS, b"a.json": json.dumps({"profile": profile}).encode()}
    assert look(settings, files) == {}


def test_no_profile_leads_around_the_allowed_collections(
    settings: Settings, tmp_path: Path
) -> None:
    own = tmp_path / "own.toml"
    own.write_text('extends = "shapes"\n[retrieval]\nallowed = ["ours"]\n')
    (tmp_path / "held.toml").write_text(f'extends = "{own}"\n')
    listed = f"{settings.inbox_profiles},{tmp_path / 'held.toml'}"
    named = {"a": "sdxl", "b": "brand", "c": "held"}
    files = {f"{name}.csv".encode(): JOBS for name in named}
    files |= {
        f"{name}.json".encode(): json.dumps({"profile": named[name]}).encode() for name in named
    }
    held = settings.model_copy(update={"profile": str(own), "inbox_profiles": listed})
    found = look(held, files)
    assert set(found) == {"a.csv", "b.csv"}
    assert all("names no retrieval.allowed" in reason for reason in found.values())


def test_a_run_made_elsewhere_is_not_touched(settings: Settings, tmp_path: Path) -> None:
    jobs = tmp_path / "theirs.csv"
    jobs.write_bytes(JOBS)
    run_folder = open_run_folder(settings, "theirs", committing=True)
    spec = open_run(jobs, Overrides(), settings, run_folder)
    found = look(settings, {b"a.csv": JOBS, b"a.toml": b'run = "theirs"', b"theirs.csv": JOBS})
    assert set(found) == {"a.csv", "theirs.csv"}
    assert all("not made by the inbox" in reason for reason in found.values())
    assert run_folder.spec() == spec


def test_an_edited_file_opens_the_inboxs_own_run_again(settings: Settings, tmp_path: Path) -> None:
    assert look(settings) == {}
    jobs = tmp_path / "good.csv"
    jobs.write_bytes(JOBS)
    run_folder = open_run_folder(settings, "good", committing=True)
    open_run(jobs, Overrides(), settings, run_folder)
    Path(settings.inbox, "good.csv").write_bytes(JOBS + b"blue square\n")
    files = Inbox(settings)
    files.claim()
    assert [line["state"] for line in files.results] == ["waits"]


def flow_run(state: State[Any]) -> FlowRun:
    return FlowRun(flow_id=uuid4(), state=state)


def on_their_way(settings: Settings, *names: str) -> list[Path]:
    """The folders of these files, taken."""
    for name in names:
        Path(settings.inbox, name).write_bytes(JOBS + name.encode())
    Inbox(settings).claim()
    return [next(Path(settings.inbox).glob(f"working/*/{name}")).parent for name in names]


@pytest.mark.parametrize(
    ("state", "place"), [(Completed(), "done"), (Failed(message="no"), "failed")]
)
def test_a_file_that_has_ended_leaves_no_folder(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, state: State[Any], place: str
) -> None:
    (folder,) = on_their_way(settings, "a.csv")
    monkeypatch.setattr(inboxes, "run_deployment", lambda *_, **__: flow_run(state))
    Inbox(settings).archive()
    assert not folder.exists()
    assert len(list(Path(settings.inbox, place).glob("*-a.csv"))) == 1


def test_looks_at_the_same_time_archive_a_file_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_their_way(settings, "a.csv")

    def meanwhile(*_: object, **__: object) -> FlowRun:
        monkeypatch.setattr(inboxes, "run_deployment", lambda *_, **__: flow_run(Completed()))
        Inbox(settings).archive()
        return flow_run(Completed())

    monkeypatch.setattr(inboxes, "run_deployment", meanwhile)
    Inbox(settings).archive()
    assert len(list(Path(settings.inbox, "done").glob("*.summary.json"))) == 1


def test_a_file_that_cannot_be_settled_stops_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = on_their_way(settings, "a.csv", "b.csv")

    def answer(*_: object, parameters: dict[str, Any], **__: object) -> FlowRun:
        if parameters["run"] == "a":
            raise ValueError("Prefect has no answer for it")
        return flow_run(Completed())

    monkeypatch.setattr(inboxes, "run_deployment", answer)
    files = Inbox(settings)
    files.archive()
    assert (bad.exists(), good.exists()) == (True, False)
    told = {line["file"]: (line["state"], line["reason"]) for line in files.results}
    assert told["a.csv"] == ("waits", "ValueError: Prefect has no answer for it")
    assert told["b.csv"][0] == "done"
    with pytest.raises(ValueError, match="no answer"):  # it is alone now
        Inbox(settings).archive()


def test_another_folder_among_those_in_work(settings: Settings) -> None:
    box = Path(settings.inbox)
    for name in ("a\\b", ".x", "notes"):
        (box / "working" / name).mkdir(parents=True)
        (box / "working" / name / "file.csv").write_bytes(JOBS)
    assert look(settings) == {}


def test_names_that_no_file_may_have_are_taken_from_a_bucket(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = ["a\\b.csv", "\u202eb.csv", "a?b*#.csv", "x" * 300 + ".csv"]
    with moto_s3("drop") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        client = server.client()
        for name in (*odd, "good.csv"):
            client.put_object(Bucket="drop", Key=f"in/{name}", Body=JOBS + name.encode())
        there = {"inbox": "s3://drop/in", "s3_endpoint_url": server.endpoint}
        files = Inbox(settings.model_copy(update=there))
        files.claim()
        found = client.list_objects_v2(Bucket="drop")["Contents"]
    places = Counter(each["Key"].split("/")[1] for each in found)
    assert places["working"] == 2  # good.csv and a?b*#.csv
    assert places["failed"] == 4  # two files, each with its note
    assert places["a\\b.csv"] == 1
    (waits,) = (line for line in files.results if line["state"] == "waits")
    assert "backslash" in waits["reason"]


PRODUCTS = b"Product name\nred circle\n"
MAPPED = b'[columns]\n"Product name" = "keywords"\n'


@pytest.mark.parametrize(
    ("state", "place"), [(Completed(), "done"), (Failed(message="no"), "failed")]
)
def test_how_a_file_is_read_goes_along_with_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, state: State[Any], place: str
) -> None:
    box, asked = Path(settings.inbox), dict[str, str]()
    files = {b"a.csv": PRODUCTS, b"a.csv.columns.toml": MAPPED, b"a.toml": b"candidates = 2"}
    assert look(settings, files) == {}

    def answer(*_: object, parameters: dict[str, Any], **__: object) -> FlowRun:
        path = Path(parameters["jobs"])
        rows = read_jobs(path, settings.chosen_profile, Overrides(), lambda _: None)
        asked[path.name] = next(rows).keywords
        return flow_run(state)

    monkeypatch.setattr(inboxes, "run_deployment", answer)
    Inbox(settings).archive()
    assert asked["a.csv"] == "red circle"
    (job_file,) = box.glob(f"{place}/*-a.csv")
    assert job_file.with_name(job_file.name + SUFFIX).read_bytes() == MAPPED
    assert job_file.with_suffix(".toml").exists()
    assert not list(box.glob("working/*"))


def test_an_editors_copy_of_a_mapping_is_none(settings: Settings) -> None:
    Path(settings.inbox, "a.csv.columns.toml~").write_bytes(MAPPED)
    assert look(settings, {b"a.csv": b"keywords\nblue\n"}) == {}
    assert len(list(Path(settings.inbox).glob("working/*/a.csv"))) == 1


@pytest.mark.parametrize("beside", ["a.csv.columns.toml", "a.json"])
def test_a_file_waits_until_what_lies_beside_it_is_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    box = Path(settings.inbox)
    (box / "a.csv").write_bytes(PRODUCTS)
    (box / beside).write_bytes(b"")
    whole = b"{}" if beside == "a.json" else MAPPED
    with monkeypatch.context() as patched:
        patched.setattr(inboxes.time, "sleep", lambda _: (box / beside).write_bytes(whole))
        Inbox(settings).claim()
    assert {path.name for path in box.iterdir()} >= {"a.csv", beside}
    Inbox(settings).claim()
    assert len(list(box.glob(f"working/*/{beside}"))) == 1


def test_another_mapping_is_another_work(settings: Settings) -> None:
    box = Path(settings.inbox)
    for mapping in (MAPPED, MAPPED + b"x = 'meta.x'"):
        (box / "a.csv").write_bytes(PRODUCTS)
        (box / "a.csv.columns.toml").write_bytes(mapping)
        Inbox(settings).claim()
    claims = [json.loads(path.read_text()) for path in box.glob("claimed/*.json")]
    assert len({claim["digest"] for claim in claims if claim["name"] == "a.csv"}) == 2


def test_a_mapping_that_was_left_behind_is_fetched(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Path(settings.inbox)
    look(settings, {b"a.csv": PRODUCTS, b"a.csv.columns.toml": MAPPED})
    (moved,) = box.glob("working/*/a.csv.columns.toml")
    moved.rename(box / moved.name)
    monkeypatch.setattr(inboxes, "run_deployment", lambda *_, **__: flow_run(Running()))
    Inbox(settings).archive()
    assert moved.exists()


@pytest.mark.parametrize(
    ("said", "reason"), [(b"columns = 3", "columns"), (b"#" * 70_000, "64 KB"), (None, "a link")]
)
def test_a_mapping_that_is_refused(
    settings: Settings, tmp_path: Path, said: bytes | None, reason: str
) -> None:
    if said is None:
        Path(settings.inbox, "a.csv.columns.toml").symlink_to(tmp_path / "none")
        found = look(settings, {b"a.csv": PRODUCTS})
    else:
        found = look(settings, {b"a.csv": PRODUCTS, b"a.csv.columns.toml": said})
    assert reason in found["a.csv"]
