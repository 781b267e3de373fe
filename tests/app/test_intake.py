"""What visitors hand in: photos within limits, files of these weights; all else in a sentence."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo, png_header
from perco_lite.app import intake
from perco_lite.app.intake import check_caption, find_captioner, read_file, read_photo, shrink
from perco_lite.coding.bitstream import BitstreamError
from perco_lite.pixels import PhotoError


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_a_photo_is_shrunk_unless_asked():
    data = encoded(make_photo(1536, 1024))
    photo = read_photo(data)
    assert photo.image.size == (768, 512) and photo.original_size == (1536, 1024)
    assert str(photo) == "768×512 pixels, shrunk from 1,536×1,024"
    photo = read_photo(data, full_size=True)
    assert photo.image.size == (1536, 1024) and str(photo) == "1,536×1,024 pixels"


@pytest.mark.parametrize("size", [(768, 512), (100, 30), (4000, 3000), (3, 40_000), (1_000_000, 1)])
def test_shrunk_photos_hold_at_most_the_usual_pixels(size):
    small = shrink(Image.new("RGB", size))
    pixels = size[0] * size[1]
    assert small.width * small.height <= intake.USUAL_PIXELS
    assert small.size == size or small.width * small.height > 0.9 * min(pixels, 768 * 512)


def test_a_photo_is_upright():
    image = make_photo(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = read_photo(encoded(image, exif=exif))
    assert photo.image.size == (40, 60)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(photo.image), np.asarray(upright))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"no photo at all", "no image that Pillow knows"),
        (encoded(make_photo())[:300], "damaged or cut short"),
        (png_header(10_000, 5_000), "10,000×5,000, over 40 megapixels"),
        (bytes(intake.MAX_BYTES + 1), "20.0 MB, at most 20 are taken"),
    ],
)
def test_what_is_no_photo_is_said(data, message):
    with pytest.raises(PhotoError, match=message):
        read_photo(data)


def test_a_file_of_other_weights_is_said(tiny_codec):
    data = tiny_codec.compress(make_photo())
    assert read_file(data, tiny_codec.model_id).caption == ""
    with pytest.raises(BitstreamError, match="but the loaded weights are model"):
        read_file(data, tiny_codec.model_id ^ 1)
    with pytest.raises(BitstreamError, match="empty"):
        read_file(b"", tiny_codec.model_id)
    with pytest.raises(BitstreamError):
        read_file(encoded(make_photo()), tiny_codec.model_id)


def test_captions():
    assert check_caption(" a red\nbarn ") == "a red barn"
    assert check_caption("красный сарай") == "красный сарай"
    with pytest.raises(ValueError, match="has 10,001 letters, at most 10,000"):
        check_caption("x" * 10_001)


def test_a_missing_captioner_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "perco_lite.captioning", None)
    with pytest.warns(UserWarning, match="captions are typed: no captioner"):
        assert find_captioner() is None
