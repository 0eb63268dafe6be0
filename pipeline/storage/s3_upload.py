"""The upload of one S3 object: in one request, or in parts when it is large."""

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef

CHECKSUM = "sha256"
"""The metadata key of our own checksum; not every server returns its own."""
PART_BYTES = 8 * 2**20
SENDERS = 4


class Encryption(TypedDict, total=False):
    """The server-side encryption of an object, as the protocol's parameters."""

    ServerSideEncryption: Literal["AES256", "aws:kms"]
    SSEKMSKeyId: str


class Condition(TypedDict, total=False):
    """The condition of a write, as the protocol's parameters."""

    IfNoneMatch: str


def encryption(sse: Literal["", "AES256", "aws:kms"], kms_key: str) -> Encryption:
    """The settings as parameters; empty for the bucket's own default."""
    if not sse:
        return Encryption()
    if not kms_key:
        return Encryption(ServerSideEncryption=sse)
    return Encryption(ServerSideEncryption=sse, SSEKMSKeyId=kms_key)


@dataclass(frozen=True)
class Upload:
    """Data for an object, sent whole or not at all, with a SHA-256 that the server checks."""

    bucket: str
    key: str
    data: bytes
    content_type: str
    condition: Condition
    encryption: Encryption

    def send(self, client: "S3Client") -> None:
        """Write the object. Raises the SDK's errors, also for a condition that does not hold."""
        if len(self.data) > PART_BYTES:
            self._send_parts(client)
            return
        # the checksum as a plain header: many servers do not know the SDK's trailing one
        checksum = printed(hashlib.sha256(self.data))
        client.put_object(
            Bucket=self.bucket,
            Key=self.key,
            Body=self.data,
            ContentType=self.content_type,
            ChecksumSHA256=checksum,
            Metadata={CHECKSUM: checksum},
            **self.condition,
            **self.encryption,
        )

    def _send_parts(self, client: "S3Client") -> None:
        """The object appears when the last request, which has the condition, succeeds.

        s3transfer, the SDK's own way, passes no condition on.
        """
        upload_id = client.create_multipart_upload(
            Bucket=self.bucket,
            Key=self.key,
            ContentType=self.content_type,
            ChecksumAlgorithm="SHA256",
            Metadata={CHECKSUM: printed(hashlib.sha256(self.data))},
            **self.encryption,
        )["UploadId"]
        try:
            client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=self.key,
                UploadId=upload_id,
                MultipartUpload={"Parts": self._parts(client, upload_id)},
                **self.condition,
            )
        except BaseException:
            # what cannot be aborted now is left for a sweep
            with suppress(ClientError, BotoCoreError):
                client.abort_multipart_upload(Bucket=self.bucket, Key=self.key, UploadId=upload_id)
            raise

    def _parts(self, client: "S3Client", upload_id: str) -> list["CompletedPartTypeDef"]:
        def send(number: int) -> "CompletedPartTypeDef":
            part = self.data[(number - 1) * PART_BYTES : number * PART_BYTES]
            checksum = printed(hashlib.sha256(part))
            answer = client.upload_part(
                Bucket=self.bucket,
                Key=self.key,
                UploadId=upload_id,
                PartNumber=number,
                Body=part,
                ChecksumSHA256=checksum,
            )
            return {"ETag": answer["ETag"], "PartNumber": number, "ChecksumSHA256": checksum}

        count = -(-len(self.data) // PART_BYTES)
        with ThreadPoolExecutor(SENDERS) as pool:
            return list(pool.map(send, range(1, count + 1)))


def printed(read: "hashlib._Hash") -> str:
    """A checksum as S3 writes it."""
    return base64.b64encode(read.digest()).decode()
