"""Images as files: pixels, parameters and the mark of origin."""

import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from pipeline.errors import JobError
from pipeline.job import ImageArray
from pipeline.media import image as images
from pipeline.media.image import ImageFormat, decode, encode

HALF_STEP = 0.5 / 255 + 1e-6
ORIGIN = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
TEXTS = ["a red circle\nSteps: 20, Seed: 1", "rødt Größe", "赤い丸 – 🎈", ""]

every_format = pytest.mark.parametrize("fmt", ["png", "webp", "jpeg"])


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


def parameters_in(image: Image.Image) -> str:
    """As A1111 reads them (`read_info_from_image`)."""
    if "parameters" in image.info:
        return str(image.info["parameters"])
    comment = image.getexif().get_ifd(0x8769).get(0x9286, b"UNICODE\0")
    assert comment[:8] == b"UNICODE\0"
    return comment[8:].decode("utf-16-be")


def xmp_in(image: Image.Image) -> str:
    found = image.info.get("XML:com.adobe.xmp") or image.info["xmp"]
    return found if isinstance(found, str) else found.decode()


@pytest.mark.parametrize("fmt", ["png", "webp"])
def test_keeps_every_pixel_in_eight_bits(fmt: ImageFormat, image: ImageArray) -> None:
    assert np.abs(decode(encode(image, fmt, "")) - image).max() <= HALF_STEP


def test_jpeg_is_close(image: ImageArray) -> None:
    assert np.abs(decode(encode(image, "jpeg", "")) - image).mean() < 0.01


@every_format
def test_is_a_file_of_its_format_and_size(fmt: ImageFormat) -> None:
    image = opened(encode(np.zeros((16, 48, 3), np.float32), fmt, "x"))
    assert (image.format, image.size, image.mode) == (fmt.upper(), (48, 16), "RGB")


@every_format
def test_equal_images_are_equal_files(fmt: ImageFormat, image: ImageArray) -> None:
    assert encode(image, fmt, TEXTS[2]) == encode(image.copy(), fmt, TEXTS[2])


@every_format
@pytest.mark.parametrize("text", TEXTS)
def test_carries_its_parameters(fmt: ImageFormat, text: str, image: ImageArray) -> None:
    assert parameters_in(opened(encode(image, fmt, text))) == text


@every_format
def test_parameters_beyond_what_exif_holds_do_not_fail(fmt: ImageFormat, image: ImageArray) -> None:
    text = "🎈" * 40_000
    found = parameters_in(opened(encode(image, fmt, text)))
    assert text.startswith(found)
    assert len(found) >= 16_000


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
@settings(max_examples=60)
def test_no_text_breaks_a_file(text: str) -> None:
    black = np.zeros((8, 8, 3), np.float32)
    for fmt in ("png", "webp", "jpeg"):
        image = opened(encode(black, fmt, text))
        image.load()
        assert parameters_in(image) == text.replace("\0", "")


def test_latin_1_stands_in_a_plain_chunk(image: ImageArray) -> None:
    assert b"tEXtparameters\0r\xf8dt" in encode(image, "png", "rødt")
    assert b"iTXtparameters\0" in encode(image, "png", "赤")


@every_format
def test_is_marked_as_made_by_a_model(fmt: ImageFormat, image: ImageArray) -> None:
    root = ElementTree.fromstring(xmp_in(opened(encode(image, fmt, ""))))
    description = next(root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"))
    iptc = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
    assert description.get(f"{iptc}DigitalSourceType") == ORIGIN
    assert description.get("{http://ns.adobe.com/xap/1.0/}CreatorTool") == "Pressrun"


def test_values_out_of_range_are_clipped() -> None:
    wild = np.array([[[-1.0, 0.5, 7.0]]], np.float32)
    assert decode(encode(wild, "png", "")).tolist() == [[[0.0, pytest.approx(128 / 255), 1.0]]]


@pytest.mark.parametrize(
    "broken", [np.full((8, 8, 3), np.nan), np.zeros((8, 8)), np.zeros((3, 8, 8))]
)
def test_refuses_what_is_no_image(broken: ImageArray) -> None:
    with pytest.raises(ValueError, match="not a finite image"):
        encode(broken, "png", "")


def test_decode_refuses_other_formats(tmp_path: Path) -> None:
    for suffix in ("bmp", "gif", "tiff", "ppm", "pdf"):
        path = tmp_path / f"x.{suffix}"
        Image.new("RGB", (8, 8)).save(path)
        with pytest.raises(JobError, match="not a PNG, JPEG or WebP"):
            decode(path.read_bytes())
    for data in (b"", b"%!PS-Adobe-3.0 EPSF-3.0", b"<svg/>"):
        with pytest.raises(JobError):
            decode(data)


@every_format
def test_decode_refuses_a_file_cut_short(fmt: ImageFormat, image: ImageArray) -> None:
    whole = encode(image, fmt, "text")
    for size in range(0, len(whole) - 16, 97):
        with pytest.raises(JobError):
            decode(whole[:size])


def test_decode_refuses_too_many_pixels_without_unpacking_them() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + checksum

    size = (30_000).to_bytes(4, "big") * 2
    header = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    with pytest.raises(JobError, match=r"too large|bomb"):
        decode(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")))


def test_decode_has_a_cap_of_its_own(monkeypatch: pytest.MonkeyPatch, image: ImageArray) -> None:
    monkeypatch.setattr(images, "LARGEST_PIXELS", 64 * 64 - 1)
    with pytest.raises(JobError, match="too large: 64x64"):
        decode(encode(image, "png", ""))


def test_decode_reads_grey_and_transparent_images_as_rgb() -> None:
    for mode in ("L", "RGBA", "P", "1"):
        file = BytesIO()
        Image.new(mode, (8, 4)).save(file, "PNG")
        found = decode(file.getvalue())
        assert found.shape == (4, 8, 3)
        assert found.dtype == np.float32


def saved(image: Image.Image, fmt: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def test_a_camera_s_image_is_read_upright() -> None:
    lying = Image.new("RGB", (80, 40), "blue")
    lying.paste("red", (0, 0, 20, 40))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for longest_side in (None, 40):
        found = decode(saved(lying, "JPEG", exif=turned, quality=95), longest_side)
        assert found.shape == ((80, 40, 3) if longest_side is None else (40, 20, 3))
        top, bottom = found[2].mean(axis=0), found[-2].mean(axis=0)
        assert top[0] > 0.9
        assert bottom[2] > 0.9


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
def test_what_is_transparent_lies_over_white(mode: str) -> None:
    if mode == "P":
        hidden = Image.new("P", (8, 8), 1)
        hidden.putpalette([0, 0, 0, 255, 0, 0])
        data = saved(hidden, transparency=1)
    else:
        data = saved(Image.new(mode, (8, 8), (255, 0, 0, 0) if mode == "RGBA" else (0, 0)))
    assert decode(data).min() == 1


def test_half_transparent_red_is_pink() -> None:
    data = saved(Image.new("RGBA", (64, 64), (255, 0, 0, 128)))
    for longest_side in (None, 16):
        assert np.allclose(decode(data, longest_side)[8, 8], (1, 0.5, 0.5), atol=0.01)


def test_sixteen_bits_keep_their_ramp() -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(4, axis=0)
    found = decode(saved(Image.fromarray(ramp)))
    assert np.allclose(found[0, :, 0], np.linspace(0, 1, 256), atol=0.01)


def test_inks_are_read_as_their_colours() -> None:
    data = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.allclose(decode(data)[8, 8], (1, 0, 0), atol=0.05)


def test_a_large_image_is_shrunk_before_it_is_numbers() -> None:
    """In a process of its own, whose peak of memory is this image's alone."""
    program = """
import resource, zlib
from io import BytesIO
from PIL import ExifTags, Image
from pipeline.media.image import decode
file = BytesIO()
Image.new("RGB", (8000, 8000), "red").save(file, "PNG", compress_level=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert decode(file.getvalue(), 1024).shape == (1024, 1024, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    # kB beside the image's own 192 MB, which the file was made from; as floats it has 768 MB
    assert int(grown.stdout) < 300_000
