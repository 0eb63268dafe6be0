"""The same command line against real servers: Redis by URL, S3, a Prefect server with its UI."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.harness.commandline import answer, pressrun
from tests.harness.prefect_server import api_client
from tests.harness.servers import rclone_s3

pytestmark = pytest.mark.slow

SHARD, ROWS = 2, 5


@pytest.fixture(scope="module")
def connected(
    workdir: Path, redis_server: str, prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A finished run against real servers: its summary, an S3 client, and Prefect's address."""
    jobs = "".join(f"{{red|blue|green}} circle on white number {n}\n" for n in range(ROWS))
    (workdir / "jobs.csv").write_text("keywords\n" + jobs, encoding="utf-8")
    with rclone_s3(tmp_path_factory.mktemp("bucket-root")) as server:
        s3 = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
        )
        s3.create_bucket(Bucket="images")
        done = pressrun(
            "run", "jobs.csv", "--run", "connected", "--candidates", "1", "--json", cwd=workdir,
            settings={
                "PRESSRUN_REDIS_URL": redis_server,
                "PRESSRUN_STORE": "s3://images/team",
                "PRESSRUN_S3_ENDPOINT_URL": server.endpoint,
                "PRESSRUN_SHARD": str(SHARD),
                "PREFECT_API_URL": prefect_server,
                **server.environment(),
            },
        )  # fmt: skip
        yield answer(done), s3, prefect_server
        log = (workdir / ".pressrun" / "worker.log").read_text(encoding="utf-8")
        assert server.secret_key not in done.stderr + log


def test_images_and_records_are_in_the_bucket(connected: Any) -> None:
    summary, s3, _ = connected
    listed = s3.list_objects_v2(Bucket="images", Prefix="team/runs/connected/")["Contents"]
    keys = [entry["Key"].removeprefix("team/runs/connected/") for entry in listed]
    records = [key for key in keys if key.startswith("records/")]
    assert len(records) == ROWS
    assert {"run.json", "manifest.parquet", "gallery/index.html"} <= set(keys)
    body = s3.get_object(Bucket="images", Key=f"team/runs/connected/{records[0]}")["Body"]
    record = json.loads(body.read())
    assert record["image"]["path"] in keys
    assert summary["folder"].endswith("team/runs/connected")


def test_prefect_shows_the_run_its_shards_progress_and_summary(connected: Any) -> None:
    _, _, api = connected
    prefect, mine = api_client(api), {"name": {"like_": "connected"}}
    flows = prefect.post("/flow_runs/filter", json={"flow_runs": mine}).json()
    named = f"generate connected ({ROWS} rows)"
    assert [(run["name"], run["state"]["type"]) for run in flows] == [(named, "COMPLETED")]
    tasks = prefect.post("/task_runs/filter", json={"task_runs": mine}).json()
    shards = {run["name"]: run["state"]["type"] for run in tasks if "shard" in run["name"]}
    spans = ("1 (rows 1 to 2)", "2 (rows 3 to 4)", "3 (rows 5 to 5)")
    assert shards == {f"connected shard {span}": "COMPLETED" for span in spans}
    artifacts = prefect.post(
        "/artifacts/filter", json={"artifacts": {"key": {"like_": "connected-"}}}
    ).json()
    found = {artifact["key"]: artifact for artifact in artifacts}
    assert found["connected-progress"]["data"] == 100.0
    assert "5 of 5" in found["connected-progress"]["description"]
    assert found["connected-images"]["data"].startswith("data:image/jpeg;base64,")
    assert "manifest.parquet" in found["connected-manifest"]["data"]
    assert "accepted" in found["connected-summary"]["data"]
    assert "gallery/index.html" in found["connected-gallery"]["data"]
