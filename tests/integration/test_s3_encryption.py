"""Encryption at rest, from the setting to what the server keeps."""

import pytest

from pipeline.assemble.stores import open_store
from pipeline.errors import ConfigError
from pipeline.settings import load_settings
from pipeline.storage.s3_upload import PART_BYTES
from tests.harness.servers import moto_s3

pytestmark = pytest.mark.slow

BUCKET = "encrypted"


def test_every_object_is_encrypted_as_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with moto_s3(BUCKET) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PRESSRUN_S3_SSE", "aws:kms")
        monkeypatch.setenv("PRESSRUN_S3_KMS_KEY", "our-key")
        settings = load_settings(store=f"s3://{BUCKET}/team", s3_endpoint_url=server.endpoint)
        store = open_store(settings)
        for key, size in (("small", 1), ("large", PART_BYTES + 1)):
            store.put(key, bytes(size), content_type="application/octet-stream")
            kept = server.client().head_object(Bucket=BUCKET, Key=f"team/{key}")
            assert (kept["ServerSideEncryption"], kept["SSEKMSKeyId"]) == ("aws:kms", "our-key")


@pytest.mark.parametrize("sse", ["", "AES256"])
def test_a_key_that_would_not_be_used_is_refused(sse: str) -> None:
    with pytest.raises(ConfigError, match="s3_kms_key"):
        load_settings(s3_sse=sse, s3_kms_key="our-key")
