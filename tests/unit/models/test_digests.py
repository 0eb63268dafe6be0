"""A digest is of the files that are loaded, and a process whose files differ does no work."""

import json
import shutil
from pathlib import Path

import pytest

from flows.runs.reproduce import reproduce_record
from pipeline.assemble.assembly import Assembly
from pipeline.assemble.models import model_digests
from pipeline.assemble.stores import open_run_folder
from pipeline.errors import ModelError
from pipeline.job import Brief, ImageArray, Score
from pipeline.models import digest
from pipeline.profile import (
    A1111Profile,
    ControlProfile,
    DiffusersProfile,
    Profile,
    TemplateWriterProfile,
)
from pipeline.record import CandidateRecord, Outcome, RunSpec, Status
from pipeline.settings import Settings, load_settings
from tests.harness import small_models
from tests.harness.jobs import make_job, make_spec
from workers.queue.messages import Message, Queue
from workers.worker.executor import Executor

JOB = make_job(1, id="j1", row=2, width=16, height=16)


def flip(path: Path) -> None:
    """Change one bit of the last tensor."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline in two variants, its text encoder in shards too."""
    folder = tmp_path_factory.mktemp("models") / "diffusion"
    small_models.save("sd", folder)
    small_models.save("sd", folder, "fp16")
    encoder = small_models.made("sd").text_encoder
    (folder / "text_encoder" / "model.safetensors").unlink()
    encoder.save_pretrained(folder / "text_encoder", max_shard_size="8KB")
    return folder


def test_what_is_not_loaded_changes_no_digest(shards: Path) -> None:
    plain, half = digest(shards, "renderer"), digest(shards, "renderer", "fp16")
    assert plain != half
    beside = [
        shards / "v1-5-pruned.safetensors",
        shards / "config.json",
        shards / "unet" / "diffusion_pytorch_model.non_ema.safetensors",
        shards / "unet" / "diffusion_pytorch_model.bin",
        shards / "unet" / "README.md",
        shards / "text_encoder" / "LICENSE.txt",
        shards / "vae_1_0" / "diffusion_pytorch_model.safetensors",
    ]
    for path in beside:
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    assert digest(shards, "renderer") == plain
    assert digest(shards, "renderer", "fp16") == half
    flip(shards / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    assert digest(shards, "renderer") == plain
    assert digest(shards, "renderer", "fp16") != half


@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model-00002-of-*",
        "vae/diff*.safet*",
    ],
)
def test_one_bit_of_what_is_loaded_changes_the_digest(name: str, shards: Path) -> None:
    first = digest(shards, "renderer")
    flip(next(path for path in sorted(shards.glob(name)) if "fp16" not in path.name))
    assert digest(shards, "renderer") != first


@pytest.mark.parametrize("name", ["tokenizer/tokenizer.json", "scheduler/scheduler_config.json"])
def test_a_setting_of_what_is_loaded_changes_the_digest(name: str, shards: Path) -> None:
    first = digest(shards, "renderer")
    (shards / name).write_text(json.dumps(json.loads((shards / name).read_text()) | {"x": 1}))
    assert digest(shards, "renderer") != first


@pytest.fixture
def settings(tmp_path: Path, models_root: Path, redis_url: str) -> Settings:
    """Those of a worker with its own copy of the judge."""
    shutil.copytree(models_root / "open_clip", tmp_path / "models" / "open_clip")
    return load_settings(
        home=tmp_path,
        models=tmp_path / "models",
        store=str(tmp_path / "out"),
        redis_url=redis_url,
        device="cpu",
    )


@pytest.fixture
def spec(settings: Settings, tmp_path: Path) -> RunSpec:
    """An open run of one job, with the judge's digest of now."""
    profile = Profile.load("shapes").model_copy(
        update={"writer": TemplateWriterProfile(), "renderer": A1111Profile()}
    )
    spec = make_spec(
        run=tmp_path.name.lower(), rows=1, shards=1, profile=profile.model_dump(mode="json"),
        models=model_digests(settings, profile),
    )  # fmt: skip
    run_folder = open_run_folder(settings, spec.run)
    run_folder.shards.write(spec.fingerprint, 1, [JOB])
    run_folder.write_spec(spec)
    return spec


def test_a_worker_with_other_weights_hands_the_job_back(settings: Settings, spec: RunSpec) -> None:
    assert Assembly(settings).ports(spec).models == {"": spec.models}
    flip(settings.models / "open_clip" / "open_clip_model.safetensors")
    ill, queue = list[str](), Queue.connect(settings.redis_url)
    executor = Executor(settings, ill.append, Assembly(settings))
    executor.execute(Message(spec.run, spec.fingerprint, 1, "j1"))
    executor.flush()
    assert open_run_folder(settings, spec.run).records.outcome("j1") is None
    (reason,) = ill
    found = digest(settings.models / "open_clip", "judge")
    for words in ("judge", found[:12], spec.models["judge"][:12], "submit the job file again"):
        assert words in reason
    leases = queue.leases()
    lease = leases.acquire(spec.run, spec.fingerprint, "j1")
    assert lease
    leases.end(lease)
    leases.flush(1)


def test_a_worker_that_loaded_the_old_weights_does_not_work_on_a_new_run(
    settings: Settings, spec: RunSpec
) -> None:
    assembly = Assembly(settings)
    assembly.ports(spec)
    flip(settings.models / "open_clip" / "open_clip_model.safetensors")
    profile = Profile.model_validate(spec.profile)
    anew = spec.model_copy(update={"models": model_digests(settings, profile)})
    with pytest.raises(ModelError, match="The judge 'open_clip' here"):
        assembly.ports(anew)


@pytest.mark.parametrize(
    ("other", "said"),
    [("renderer", "renderer 'diffusion'"), ("control:lines", "control:lines 'net'")],
)
def test_an_image_is_not_made_again_with_other_weights(
    settings: Settings, spec: RunSpec, image: ImageArray, other: str, said: str
) -> None:
    pipe = small_models.made("sd")
    pipe.save_pretrained(settings.models / "diffusion")
    small_models.save_controlnet(pipe, settings.models / "net")
    controls = {name: ControlProfile(model="net") for name in ("lines", "unused")}
    profile = DiffusersProfile(model="diffusion", controls=controls).model_dump(mode="json")
    run_folder = open_run_folder(settings, spec.run)
    run_folder.write_spec(spec.model_copy(update={"profile": spec.profile | {"renderer": profile}}))
    kept = CandidateRecord(index=0, seed=1, score=Score(raw=1, calibrated=1))
    outcome = Outcome(
        run=spec.run, job_id="j1", status=Status.ACCEPTED, row=2, keywords="red circle",
        job=JOB.model_copy(update={"control": "lines"}),
        brief=Brief(text="a", prompt="a"), candidates=(kept,), winner=0,
        models={other: "0" * 64, "writer": "not asked for", "control:unused": "not asked for"},
    )  # fmt: skip
    run_folder.records.commit(outcome, image)
    with pytest.raises(ModelError, match=rf"The {said} here is .* of 000000000000"):
        reproduce_record(f"{spec.run}/j1", settings, None)
