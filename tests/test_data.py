"""Photos of every kind in, tensors and back, where data is found, captions."""

import importlib.metadata
import io
import re
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import pixels, png_header
from perco_lite import data
from perco_lite.data import PhotoError, image_to_tensor, load_photo, tensor_to_image, to_rgb

WIDTH, HEIGHT = 24, 16


def make_photo(width=WIDTH, height=HEIGHT):
    """A smooth colour ramp: red grows to the right, green downwards."""
    down, right = np.mgrid[0:height, 0:width]
    ramp = np.stack([right * 255 // max(width - 1, 1), down * 255 // max(height - 1, 1)], -1)
    return Image.fromarray(np.dstack([ramp, np.full((height, width), 90)]).astype(np.uint8))


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """A fresh machine: an empty data folder, an empty cache, and no network."""
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache" / name)

    def refuse(*args, **kwargs):
        raise OSError("a test tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


# --- files that are photos ---


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: show it turned by 90 degrees
    make_photo(64, 32).save(tmp_path / "phone.jpg", exif=exif, quality=95, subsampling=0)
    photo = load_photo(tmp_path / "phone.jpg")
    assert photo.size == (32, 64) and photo.mode == "RGB"
    expected = make_photo(64, 32).transpose(Image.Transpose.ROTATE_270)
    assert np.abs(pixels(photo) - pixels(expected)).mean() < 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr", "HSV"])
def test_opaque_modes_become_rgb(mode):
    photo = to_rgb(make_photo().convert(mode))
    assert photo.mode == "RGB" and photo.size == (WIDTH, HEIGHT)


def test_grey_repeats_over_the_channels(tmp_path):
    grey = make_photo().convert("L")
    grey.save(tmp_path / "grey.png")
    photo = pixels(load_photo(tmp_path / "grey.png"))
    assert all((photo[..., channel] == pixels(grey)).all() for channel in range(3))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_goes_on_white(tmp_path, mode):
    image = make_photo().convert(mode)
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, WIDTH // 2 :] = 255
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "alpha.png")
    photo = pixels(load_photo(tmp_path / "alpha.png"))
    assert (photo[:, : WIDTH // 2] == 255).all()
    opaque = pixels(make_photo().convert(mode[:-1]).convert("RGB"))
    assert (photo[:, WIDTH // 2 :] == opaque[:, WIDTH // 2 :]).all()


def test_palette_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (4, 2), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((3, 1), 1)
    image.save(tmp_path / "palette.png", transparency=0)
    photo = load_photo(tmp_path / "palette.png")
    assert photo.getpixel((0, 0)) == (255, 255, 255)
    assert photo.getpixel((3, 1)) == (200, 100, 50)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    levels = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(4, 0)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    expected = np.round(levels / 65535 * 255)
    assert (pixels(load_photo(tmp_path / "deep.png"))[..., 0] == expected).all()
    as_int32 = Image.fromarray(levels.astype(np.int32))
    assert as_int32.mode == "I"
    assert (pixels(to_rgb(as_int32))[..., 0] == expected).all()


def test_cmyk_jpeg(tmp_path):
    make_photo().convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    photo = load_photo(tmp_path / "print.jpg")
    assert photo.mode == "RGB"
    assert np.abs(pixels(photo) - pixels(make_photo())).mean() < 12


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_first_frame_of_an_animation(tmp_path, suffix):
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    red.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[blue], lossless=True)
    assert load_photo(tmp_path / f"a.{suffix}").getpixel((4, 4)) == (255, 0, 0)


FORMATS = ["png", "jpg", "jp2", "webp", "avif", "bmp", "tga", "tiff", "gif", "ppm"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_one_pixel_in_each_format(tmp_path, suffix):
    Image.new("RGB", (1, 1), (200, 200, 200)).save(tmp_path / f"dot.{suffix}")
    photo = load_photo(str(tmp_path / f"dot.{suffix}"))
    assert photo.size == (1, 1) and abs(photo.getpixel((0, 0))[1] - 200) < 4


# --- files that are not ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"not a photo\n" * 50, "is no image", id="text"),
        pytest.param(png_header(20000, 20000), "make it smaller", id="400 megapixels"),
        pytest.param(png_header(10001, 10000), "make it smaller", id="just over the limit"),
        pytest.param(png_header(64, 64), "damaged or cut short", id="header only"),
        pytest.param(png_header(0, 64), "is no image|damaged|at least", id="no width"),
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path, content, message, recwarn):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(PhotoError, match=message) as caught:
        load_photo(tmp_path / "bad.png")
    assert "bad.png" in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError) and not recwarn


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "gif", "tiff"])
def test_a_file_cut_short(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, format="jpeg" if suffix == "jpg" else suffix)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    with pytest.raises(PhotoError, match=f"cut.{suffix}"):
        load_photo(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.png; check the path"):
        load_photo(tmp_path / "nowhere.png")
    with pytest.raises(PhotoError, match="is a folder"):
        load_photo(tmp_path)


def test_to_rgb_refuses_what_has_no_8_bit_meaning():
    with pytest.raises(TypeError, match="ndarray.*fromarray"):
        to_rgb(np.zeros((4, 4, 3)))
    with pytest.raises(PhotoError, match="floating-point"):
        to_rgb(Image.new("F", (4, 4)))
    with pytest.raises(PhotoError, match="expected 0..65535"):
        to_rgb(Image.fromarray(np.full((2, 2), 70000, np.int32)))
    with pytest.raises(PhotoError, match="at least 1×1"):
        to_rgb(Image.new("RGB", (0, 5)))


def test_to_rgb_leaves_the_callers_image_alone():
    original = make_photo()
    to_rgb(original).putpixel((0, 0), (1, 2, 3))
    assert original.getpixel((0, 0)) == make_photo().getpixel((0, 0))


# --- tensors ---


def test_image_tensor_round_trip():
    image = image_to_tensor(make_photo())
    assert image.shape == (1, 3, HEIGHT, WIDTH) and image.dtype == torch.float32
    assert image.min() == -1 and image.max() == 1
    assert (pixels(tensor_to_image(image)) == pixels(make_photo())).all()
    assert (pixels(tensor_to_image(image[0])) == pixels(make_photo())).all()
    assert len(tensor_to_image(image.repeat(2, 1, 1, 1))) == 2


def test_tensor_to_image_clamps_and_checks():
    assert tensor_to_image(torch.full((3, 1, 1), 7.0)).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(ValueError, match=r"\(2, 1, 1\), expected \(3,H,W\)"):
        tensor_to_image(torch.zeros(2, 1, 1))
    with pytest.raises(ValueError, match="NaN"):
        tensor_to_image(torch.full((3, 1, 1), torch.nan))


@pytest.mark.parametrize("size", [(1, 1), (3, 64), (64, 65), (64, 64)])
def test_pad_repeats_the_edge(size):
    image = torch.randn(1, 3, *size)
    padded = data.pad_to_multiple(image, 64)
    assert padded.shape[2] % 64 == padded.shape[3] % 64 == 0
    assert torch.equal(padded[..., : size[0], : size[1]], image)
    assert torch.equal(padded[..., -1, -1], image[..., -1, -1])
    with pytest.raises(ValueError, match="expected"):
        data.pad_to_multiple(image[0], 64)


# --- where photos are found ---


def test_list_photos(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    assert [path.name for path in data.list_photos([tmp_path])] == ["a.JPG", "b.png"]
    assert data.list_photos(str(tmp_path / "notes.txt")) == [tmp_path / "notes.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no photos in .*empty"):
        data.list_photos([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="check the path"):
        data.list_photos([tmp_path / "nowhere"])


def test_find_data_looks_in_order(no_data):
    assert data.find_data("kodak") is None
    cached = no_data / "cache" / "perco_lite" / "kodak"
    cached.mkdir(parents=True)
    assert data.find_data("kodak") == cached
    (no_data / "kodak").mkdir()
    assert data.find_data("kodak") == no_data / "kodak"
    given = no_data / "given" / "kodak"
    given.mkdir(parents=True)
    assert data.find_data("kodak", given.parent) == data.find_data("kodak", given) == given


def test_find_data_looks_nowhere_else(no_data, monkeypatch):
    """Not beside the checkout, as long as nobody says so: the Makefile does."""
    monkeypatch.delenv("PERCO_LITE_DATA")
    monkeypatch.setattr(data, "_CHECKOUT", no_data / "checkout")
    (no_data / "shared" / "data" / "kodak").mkdir(parents=True)
    assert data.find_data("kodak") is None


def test_find_data_errors(no_data, monkeypatch):
    with pytest.raises(ValueError, match="'imagenet', expected one of kodak"):
        data.find_data("imagenet")
    with pytest.raises(FileNotFoundError, match="data/README.md"):
        data.find_data("kodak", no_data)
    monkeypatch.setenv("PERCO_LITE_DATA", str(no_data / "nowhere"))
    with pytest.raises(FileNotFoundError, match="PERCO_LITE_DATA"):
        data.find_data("kodak")


def test_an_installed_package_brings_its_captions(tmp_path, monkeypatch):
    kept = importlib.metadata.PackagePath("share/perco_lite/data/captions.json")
    kept.dist = SimpleNamespace(locate_file=lambda path: tmp_path / path)
    monkeypatch.setattr("importlib.metadata.files", lambda name: [kept])
    monkeypatch.setattr(data, "_CHECKOUT", tmp_path / "none")
    assert data.load_captions() == {}
    (tmp_path / kept).parent.mkdir(parents=True)
    (tmp_path / kept).write_text('{"coffee.png": "a cup"}')
    assert data.load_captions() == {"coffee.png": "a cup"}
    captions = {sample.name: sample.caption for sample in data.skimage_photos()}
    assert captions["coffee.png"] == "a cup"


def test_samples_on_a_fresh_machine_offline(no_data):
    samples = data.sample_photos()
    assert data.kodak_photos() == []
    assert [sample.name for sample in samples] == list(data.SKIMAGE_PHOTOS)
    for sample in samples:
        assert sample.source == "scikit-image" and sample.image.mode == "RGB"
        assert min(sample.image.size) >= 300 and len(sample.caption.split()) >= 8


def test_samples_are_kodak_where_found(no_data):
    (no_data / "kodak").mkdir()
    make_photo().save(no_data / "kodak" / "kodim23.png")
    (sample,) = data.sample_photos()
    assert sample.source == "kodak" and "parrots" in sample.caption


# --- captions ---


def test_our_captions_cover_every_sample():
    captions = data.load_captions()
    kodak = {f"kodim{number:02d}.png" for number in range(1, 25)}
    assert set(captions) == kodak | set(data.SKIMAGE_PHOTOS)
    for name, caption in captions.items():
        assert 8 <= len(caption.split()) <= 12, name
        assert re.fullmatch(r"[a-z' ]+", caption), name  # lower-case, ASCII, no full stop
    assert len(set(captions.values())) == len(captions)


def test_captions_file(tmp_path):
    file = tmp_path / "captions.json"
    file.write_text('{"a.png": "one", "b.png": ["first", "second"], "c.png": []}')
    assert data.load_captions(file) == {"a.png": "one", "b.png": "first", "c.png": ""}
    for bad in ("[1]", '{"a.png": 3}', "{", '{"annotations": [{"id": 1}], "images": []}'):
        file.write_text(bad)
        with pytest.raises(ValueError, match="captions.json"):
            data.load_captions(file)
    with pytest.raises(FileNotFoundError, match="write one as"):
        data.load_captions(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('\ufeff{"a.png": "a dog"}'.encode(), "a dog"),
        (
            b'{"images": [{"id": 7, "file_name": "a.png"}], "annotations": '
            b'[{"image_id": 7, "id": 2, "caption": "second"}, '
            b'{"image_id": 7, "id": 1, "caption": "a dog"}]}',
            "a dog",
        ),
        ('{"a.png": "a dog"}'.encode("utf-16"), "is not UTF-8"),
        ('{"a.png": "a dog"}'.encode("utf-16-le"), "is not UTF-8"),
        ('{"a.png": "a d\xf6g"}'.encode("latin-1"), "is not UTF-8"),
        (b'{"a.png": 5}', "got 5 for a.png"),
        (b"[" * 100_000, "is not a JSON object"),
        (b'{"a": ' * 100_000, "is not a JSON object"),
        (b'{"images": [1], "annotations": [null]}', "is not a JSON object"),
        (b'{"a.png": [' + b"1, " * 300_000 + b"1]}", "expected a string"),
    ],
)
def test_captions_files_of_every_kind(tmp_path, content, expected):
    path = tmp_path / "captions.json"
    path.write_bytes(content)
    if expected == "a dog":
        assert data.load_captions(path)["a.png"] == "a dog"
        return
    with pytest.raises(ValueError, match=expected) as caught:
        data.load_captions(path)
    assert len(str(caught.value)) < len(str(path)) + 120
