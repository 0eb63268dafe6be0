"""The columns that name images: which files a row may have, and what becomes of them."""

import errno
import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import JobError, StoreError
from pipeline.job import BadRow, InputImage, Job
from pipeline.jobfile.reader import FORMATS, Notice, Overrides, input_names, read_jobs
from pipeline.media.image_store import INPUTS, ImageStore
from pipeline.media.inputs import InputReader, StoredInputs
from pipeline.profile import ImageAdapterProfile, Profile
from pipeline.storage.folder import FolderStore

PROFILE = Profile.load("shapes")


def an_image(width: int = 12, height: int = 8, **options: object) -> bytes:
    """A PNG, red on its left half."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[:, : width // 2] = (200, 0, 0)
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", **options)
    return file.getvalue()


def stored(images: ImageStore) -> StoredInputs:
    return StoredInputs(images, lambda image: tuple(image.mean((0, 1)).tolist()))


def read(folder: Path, *rows: str, inputs: InputReader | None = None) -> list[Job | BadRow]:
    path = folder / "jobs.csv"
    path.write_text("keywords,image,mask,strength\n" + "".join(f"circle,{row}\n" for row in rows))
    return list(read_jobs(path, PROFILE, Overrides(), inputs=inputs or InputReader([folder])))


def of(row: Job | BadRow) -> InputImage:
    assert isinstance(row, Job), row
    assert row.image
    return row.image


def test_an_image_is_stored_by_its_content_and_loaded_in_the_jobs_size(tmp_path: Path) -> None:
    photos, store = tmp_path / "photos", FolderStore(tmp_path / "store")
    photos.mkdir()
    (photos / "a  b.png").write_bytes(an_image())
    (photos / "same.webp").write_bytes(an_image())
    images = ImageStore(store, INPUTS)
    reader = InputReader([photos], images=images)
    spaced, same = map(of, read(tmp_path, "a  b.png,,", "same.webp,,", inputs=reader))
    assert (spaced.path, spaced.width, spaced.height) == ("a  b.png", 12, 8)
    assert spaced.sha256 == same.sha256
    assert list(store.keys("")) == [f"inputs/{spaced.sha256}.png"]
    # 8 of its 12 columns, in the middle
    loaded = stored(images).load(spaced, 32, 32)
    assert loaded.pixels.shape == (32, 32, 3)
    assert np.allclose(loaded.pixels[:, :14], (200 / 255, 0, 0), atol=0.02)
    assert np.allclose(loaded.pixels[:, 18:], 1, atol=0.02)
    assert stored(images).embed(spaced) == pytest.approx((0.89, 0.5, 0.5), abs=0.01)
    store.delete(f"inputs/{spaced.sha256}.png")
    with pytest.raises(JobError, match="gone from the store"):
        stored(images).load(spaced, 32, 32)


def test_the_content_of_an_image_decides_the_jobs_id_and_its_name_does_not(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(an_image())
    path = tmp_path / "jobs.csv"
    path.write_text("keywords,image\ncircle,a.png\ncircle,./b.png\ncircle,\n")

    def ids() -> list[str]:
        rows = read_jobs(path, PROFILE, Overrides(), inputs=InputReader([tmp_path]))
        return [row.id for row in rows]

    a, b, none = ids()
    assert a == b != none
    (tmp_path / "b.png").write_bytes(an_image(16))
    assert ids()[0] == a != ids()[1]


def test_the_state_of_the_files_tells_a_changed_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(an_image())
    read(tmp_path, "a.png,,", ",,", "missing.png,,")
    names = list(input_names(tmp_path / "jobs.csv"))
    assert names == ["a.png", "missing.png"]
    before = InputReader([tmp_path]).state(names)
    assert before == InputReader([tmp_path]).state(names) != ""
    os.utime(tmp_path / "a.png", (1, 1))
    assert InputReader([tmp_path]).state(names) != before
    assert InputReader([tmp_path]).state([]) == ""
    # an object's state is not asked for: it counts as changed
    assert len({InputReader([]).state(["s3://b/a.png"]) for _ in range(2)}) == 2


def test_reference_images_are_a_list_that_needs_an_adapter(tmp_path: Path) -> None:
    for name, width in (("a.png", 12), ("b.png", 16)):
        (tmp_path / name).write_bytes(an_image(width))
    path = tmp_path / "jobs.csv"
    header = "keywords,reference_images,reference_scale\n"
    path.write_text(f"{header}circle,a.png| b.png,\nring,x.png,0\n")
    told = list[Notice]()

    def read(profile: Profile) -> list[Job | BadRow]:
        inputs = InputReader([tmp_path])
        return list(read_jobs(path, profile, Overrides(), told.append, inputs=inputs))

    two, missing = read(PROFILE)
    assert isinstance(two, Job)
    assert [image.path for image in two.reference_images] == ["a.png", "b.png"]
    assert two.batch_key[3:] == (2, 0)
    assert isinstance(missing, BadRow)
    assert missing.column == "reference_images"
    bare = PROFILE.renderer.model_copy(update={"image_adapter": ""})
    refused, _ = read(PROFILE.model_copy(update={"renderer": bare}))
    assert isinstance(refused, BadRow)
    assert "no image adapter" in refused.reason
    look = ImageAdapterProfile(model="look", images="retrieved")
    others = PROFILE.renderer.model_copy(update={"image_adapter": {"look": look}})
    refused, _ = read(PROFILE.model_copy(update={"renderer": others}))
    assert isinstance(refused, BadRow)
    assert refused.reason == "no renderer.image_adapter takes named images"
    path.write_text(f"{header}circle,a.png,0\n")
    read(PROFILE)
    assert "reference_images have no effect at reference_scale 0" in told[-1].reason


def bomb(folder: Path) -> None:
    """A PNG of 30,000 pixels a side in a few bytes."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 << 20)))]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    (folder / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def truncated(folder: Path) -> None:
    file = BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, format="JPEG")
    (folder / "x.png").write_bytes(file.getvalue()[:900])


def huge(folder: Path) -> None:
    with (folder / "x.png").open("wb") as file:
        file.truncate(1 << 36)


def out_of_the_root(folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(an_image())
    (folder / "x.png").symlink_to(folder.parent / "secret.png")


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "30,000 pixels a side": (bomb, "900000000 pixels"),
    "a truncated JPEG": (truncated, "cannot be read: image file is truncated"),
    "an SVG": (lambda folder: (folder / "x.png").write_text("<svg/>"), "not a PNG, JPEG or WebP"),
    "64 GB": (huge, "larger than 64 MB"),
    "a link out of the folder": (out_of_the_root, "leads out of the allowed places"),
    "a link to itself": (lambda folder: (folder / "x.png").symlink_to("x.png"), "no such file"),
    "a FIFO": (lambda folder: os.mkfifo(folder / "x.png"), "no regular file"),
    "a folder": (lambda folder: (folder / "x.png").mkdir(), "no regular file"),
    "nothing": (lambda _: None, "no such file below"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_a_bad_row_with_its_reason(tmp_path: Path, kind: str) -> None:
    make, said = HOSTILE[kind]
    folder = tmp_path / "inputs"
    folder.mkdir()
    make(folder)
    (folder / "fine.png").write_bytes(an_image())
    bad, good = read(tmp_path, "x.png,,", "fine.png,,", inputs=InputReader([folder]))
    assert isinstance(bad, BadRow)
    assert (bad.column, bad.row) == ("image", 2)
    assert said in bad.reason
    assert isinstance(good, Job)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../secret.png", "leads out"),
        ("/etc/passwd", "leads out"),
        ("a/../../secret.png", "leads out"),
        ("https://host/x.png", "no URL is fetched"),
        ("file:///etc/passwd", "no URL is fetched"),
        ("data:image/png;base64 AAAA", "no URL is fetched"),
        ("s3://other/x.png", "no allowed place"),
        ("a\x00b.png", "U+0000 is not allowed"),
        ("s3://brand/in/../x.png", "begins with a dot"),
        ("s3://brand/in//x.png", "is empty"),
        ("s3://brand/in/.x.png", "begins with a dot"),
        ("x" * 3000, "longer than 2048 bytes"),
        ("x" * 300, "no such file"),
    ],
)
def test_a_name_outside_the_allowed_places_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "secret.png").write_bytes(an_image())
    folder = tmp_path / "inputs"
    folder.mkdir()
    reader = InputReader([folder], {"s3://brand/in": FolderStore(tmp_path / "bucket")})
    (bad,) = read(tmp_path, f"{name},,", inputs=reader)
    assert isinstance(bad, BadRow)
    assert said in bad.reason


def test_an_object_of_an_allowed_bucket_is_read(tmp_path: Path) -> None:
    bucket = FolderStore(tmp_path / "bucket")
    bucket.put("photos/a.png", an_image(), content_type="image/png")
    reader = InputReader([], {"s3://brand/in": bucket})
    found, missing, beside = read(
        tmp_path, "s3://brand/in/photos/a.png,,", "s3://brand/in/b.png,,", "s3://brand/inner/a,,",
        inputs=reader,
    )  # fmt: skip
    assert of(found).path == "s3://brand/in/photos/a.png"
    assert isinstance(missing, BadRow)
    assert "no such object" in missing.reason
    assert isinstance(beside, BadRow)
    assert "no allowed place" in beside.reason


@pytest.mark.parametrize(
    ("row", "column", "said"),
    [
        (",a.png,", "mask", "needs an image"),
        ("a.png,wide.png,", "mask", "24x8 pixels and the image 12x8"),
        ("a.png,,0", "strength", "greater than 0"),
        ("a.png,,0.001", "strength", "0.001 of 20 steps is no step"),
    ],
)
def test_images_that_do_not_go_together_are_refused(
    tmp_path: Path, row: str, column: str, said: str
) -> None:
    (tmp_path / "a.png").write_bytes(an_image())
    (tmp_path / "wide.png").write_bytes(an_image(24))
    (bad,) = read(tmp_path, row)
    assert isinstance(bad, BadRow)
    assert (bad.column, said in bad.reason) == (column, True), bad.reason


def test_too_many_images_and_numbers_beyond_reason_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(an_image())
    path = tmp_path / "jobs.jsonl"
    many = "|".join(f"{number}.png" for number in range(9))
    path.write_text(
        f'{{"keywords": "a", "reference_images": "{many}"}}\n'
        f'{{"keywords": "a", "image": "a.png", "steps": {"9" * 400}}}\n'
    )
    reader = InputReader([tmp_path])
    images, steps = read_jobs(path, PROFILE, Overrides(), inputs=reader)
    assert isinstance(images, BadRow)
    assert "9 images are too many" in images.reason
    assert isinstance(steps, BadRow)
    assert steps.column == "steps"


def test_a_place_may_be_a_link_and_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "a.png").write_bytes(an_image())
    reader = InputReader([tmp_path / "link"])
    for name in ("a.png", f"{tmp_path}/link/a.png", f"{tmp_path}/real/a.png"):
        assert reader.read(name).width == 12


def test_a_store_is_waited_for(tmp_path: Path) -> None:
    """A disk that does not answer is not the row's fault, and a store may answer later."""
    (tmp_path / "a.png").write_bytes(an_image())
    calls = list[object]()

    def patiently(call: Callable[[], object]) -> object:
        calls.append(call)
        return call()

    images = ImageStore(FolderStore(tmp_path / "store"), INPUTS)
    InputReader([tmp_path], images=images, patiently=patiently).read("a.png")
    assert len(calls) == 1


def test_a_disk_that_fails_is_not_the_rows_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(an_image())

    def failing(*_: object, **_named: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pipeline.media.inputs.os.open", failing)
    with pytest.raises(StoreError, match="Input/output error"):
        read(tmp_path, "a.png,,")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_without_such_columns_is_not_parsed_for_them(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"jobs{suffix}"
    path.write_text("keywords\ncircle\n" if suffix == ".csv" else '{"keywords": "circle"}\n')
    monkeypatch.setitem(FORMATS, suffix, lambda *_: pytest.fail("it was parsed"))
    assert list(input_names(path)) == []


def test_an_image_is_read_once_however_many_rows_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(an_image())
    opened = list[object]()
    real = os.open

    def counting(path: object, *rest: int, **more: int) -> int:
        opened.append(path)
        return real(path, *rest, **more)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr("pipeline.media.inputs.os.open", counting)
    rows = read(tmp_path, *["a.png,,"] * 150)
    assert len({of(row).sha256 for row in rows}) == 1
    assert len([path for path in opened if str(path).endswith("a.png")]) == 1


def test_a_photographs_orientation_and_cmyk_are_understood(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    (tmp_path / "turned.png").write_bytes(an_image(exif=exif))
    Image.new("CMYK", (10, 10), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    store = FolderStore(tmp_path / "store")
    reader = InputReader([tmp_path], images=ImageStore(store, INPUTS))
    turned, cmyk = map(of, read(tmp_path, "turned.png,,", "cmyk.jpg,,", inputs=reader))
    assert (turned.width, turned.height) == (8, 12)
    red = stored(ImageStore(store, INPUTS)).load(cmyk, 8, 8).pixels[4, 4]
    assert red[0] > 0.9 > 0.2 > red[1]
