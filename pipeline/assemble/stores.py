"""The store of the settings, and the folders of runs in it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.errors import ConfigError
from pipeline.ports import Store
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings
from pipeline.storage.folder import FolderStore
from pipeline.storage.probe import WRITERS, honours_conditions

if TYPE_CHECKING:
    from pipeline.storage.s3 import S3Store

log = structlog.get_logger(__name__)


def open_store(settings: Settings, *, conditional: bool = True) -> Store:
    """The store that the settings name. Raises ConfigError and StoreError.

    `conditional` is False for a store that does not honour conditions: `put` with `new` is then a
    check followed by a write.
    """
    if not settings.store.startswith("s3://"):
        return FolderStore(Path(settings.store), conditional=conditional)
    return s3_store(settings, conditional=conditional)


def reach_store(settings: Settings) -> None:
    """Raise StoreError, within seconds, where the store's server does not answer."""
    if settings.store.startswith("s3://"):
        from pipeline.storage.s3 import FIRST_ATTEMPTS, FIRST_SECONDS

        s3_store(settings, attempts=FIRST_ATTEMPTS, read_seconds=FIRST_SECONDS).reach()


def s3_store(settings: Settings, **more: Any) -> "S3Store":
    from pipeline.storage.s3 import S3Store
    from pipeline.storage.s3_upload import encryption

    bucket, _, prefix = settings.store.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"PRESSRUN_STORE: {settings.store!r} names no bucket")
    return S3Store(
        bucket,
        prefix,
        settings.s3_endpoint_url,
        settings.s3_region,
        addressing=settings.s3_addressing,
        encryption=encryption(settings.s3_sse, settings.s3_kms_key),
        **more,
    )


def open_store_to_commit(settings: Settings) -> Store:
    """The store for a process that commits outcomes, after a test of its conditional writes.

    A store that fails the test is used without them: `Lease.confirm` right before each record then
    keeps a second execution away. Raises ConfigError and StoreError.
    """
    store = open_store(settings)
    writers = 2 if isinstance(store, FolderStore) else WRITERS
    if honours_conditions(store, "", writers):
        return store
    log.warning(
        "the store does not refuse to overwrite (If-None-Match, hard links): leases in Redis keep"
        " records single",
        store=store.address(""),
    )
    return open_store(settings, conditional=False)


def open_run_folder(settings: Settings, run: str, *, committing: bool = False) -> RunFolder:
    """The folder of one run; with `committing`, its store is tested first."""
    store = open_store_to_commit(settings) if committing else open_store(settings)
    return RunFolder(store, run, settings.image_format)
