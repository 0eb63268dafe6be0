"""The image that Prefect's UI shows of a run."""

from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from flows.runs.gallery.contact_sheet import COLUMNS, IMAGES, LARGEST, SIDE, best, sheet
from pipeline.records.manifest import SCHEMA, Manifest


def png(width: int, height: int, seed: int) -> bytes:
    """An image that compresses badly."""
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def test_the_sheet_stays_small_whatever_is_on_it() -> None:
    jpeg = sheet(png(512, 256, seed) for seed in range(IMAGES))
    assert len(jpeg) <= LARGEST
    with Image.open(BytesIO(jpeg)) as page:
        assert (page.format, page.size) == ("JPEG", (COLUMNS * SIDE, 4 * SIDE))


def test_a_few_images_make_a_small_sheet() -> None:
    with Image.open(BytesIO(sheet([png(64, 64, 1), png(64, 64, 2)]))) as page:
        assert page.size == (2 * SIDE, SIDE)


def test_a_damaged_image_takes_no_place() -> None:
    with Image.open(BytesIO(sheet([png(64, 64, 1), b"\x89PNG", png(64, 64, 2)]))) as page:
        assert page.size == (2 * SIDE, SIDE)


def manifest(*lines: tuple[str, float, str]) -> Manifest:
    """Of outcomes, scores and images."""
    empty = {field.name: "" if field.type == pa.string() else 0 for field in SCHEMA}
    empty["sources"] = []
    told = [dict(zip(("outcome", "score", "image"), line, strict=True)) for line in lines]
    file = BytesIO()
    pq.write_table(pa.Table.from_pylist([empty | each for each in told], SCHEMA), file)
    return Manifest(file.getvalue())


def test_equal_rows_show_their_image_once() -> None:
    lines = [("accepted", 0.9, "same.png")] * 2 * IMAGES
    lines += [("accepted", number / 100, f"{number}.png") for number in range(2 * IMAGES)]
    lines += [("below_gate", 1.0, "below.png")]
    found = best(manifest(*lines))
    assert found[0] == "same.png"
    assert found[1:] == [f"{number}.png" for number in range(2 * IMAGES - 1, IMAGES, -1)]
