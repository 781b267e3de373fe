"""Contact sheets: every photo whole and undistorted, every label readable under it."""

import io

import numpy as np
import pytest
from PIL import Image, ImageChops

from perco_lite.plotting import ACCENT, PAPER, Tile, contact_sheet, show_moving

GAP = 10


def boxes(sheet, colour):
    """Bounding box of one colour on a sheet, (left, top, right, bottom)."""
    same = (np.asarray(sheet) == colour).all(-1)
    rows, columns = np.flatnonzero(same.any(1)), np.flatnonzero(same.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def ink(sheet, box):
    """Whether anything but paper is drawn in a box."""
    part = sheet.crop(box)
    return ImageChops.difference(part, Image.new("RGB", part.size, PAPER)).getbbox()


def test_each_photo_has_its_place():
    red, blue = Image.new("RGB", (40, 20), (255, 0, 0)), Image.new("L", (30, 60), 99)
    green = Image.new("RGBA", (8, 8), (0, 255, 0, 255))
    sheet = contact_sheet([[Tile(red), Tile(blue)], [Tile(None), Tile(green)]], tile_width=100)
    assert sheet.width == 3 * GAP + 2 * 100
    assert boxes(sheet, (255, 0, 0)) == (GAP, GAP, GAP + 100, GAP + 50), "as wide as its place"
    left, top, right, bottom = boxes(sheet, (99, 99, 99))
    assert (left, top, right - left, bottom - top) == (2 * GAP + 100, GAP, 100, 200)
    left, top, right, bottom = boxes(sheet, (0, 255, 0))
    assert (left, right - left, bottom - top) == (2 * GAP + 100, 100, 100) and top > GAP + 200
    assert bottom < sheet.height
    assert not ink(sheet, (0, GAP + 200, GAP + 100, sheet.height)), "an empty place is empty"


def test_labels_are_under_their_photos_and_inside_their_place():
    photo = Image.new("RGB", (100, 50), (0, 0, 200))
    long = "a label much longer than the photo is wide\nand its second line is as long as that\nno"
    plain = contact_sheet([[Tile(photo), Tile(photo)]], tile_width=150)
    sheet = contact_sheet([[Tile(photo, long, accent=True), Tile(photo)]], tile_width=150)
    assert sheet.size == plain.size
    under = (0, GAP + 75, GAP + 150, sheet.height)
    left, top, right, bottom = ink(sheet, under)
    assert left >= GAP and right <= GAP + 150, "it does not reach its neighbour"
    assert bottom < sheet.height - (GAP + 75) - 2, "two lines fit"
    assert bottom - top > 2 * 12, "both are there"
    assert not ink(sheet, (GAP + 150, GAP + 75, sheet.width, sheet.height))
    assert (np.asarray(sheet.crop(under)) == ACCENT).all(-1).any()
    assert not (np.asarray(plain.crop(under)) == ACCENT).all(-1).any()


@pytest.mark.parametrize("letter", "×…éñßЖ≤≥√ᾱ")
def test_letters_that_labels_use_are_in_the_font(letter):
    photo = Image.new("RGB", (8, 8))
    sheet, missing = (contact_sheet([[Tile(photo, text)]]) for text in (letter, "\U0010ffff"))
    assert sheet.tobytes() != missing.tobytes(), "an empty box in its place"


def test_a_title_has_room_of_its_own():
    photo = Image.new("RGB", (100, 50), (0, 0, 200))
    sheet = contact_sheet([[Tile(photo)]], title="What others do with these bytes " * 9)
    top = boxes(sheet, (0, 0, 200))[1]
    left, _, right, bottom = ink(sheet, (0, 0, sheet.width, top))
    assert left >= GAP - 1 and right <= sheet.width - GAP + 1 and bottom <= top - 4


def test_nothing_to_draw_is_an_error():
    for rows in ([], [[]]):
        with pytest.raises(ValueError, match="no tiles"):
            contact_sheet(rows)


def test_what_moves_comes_to_rest_on_its_last_figure():
    from matplotlib import pyplot as plt

    def bar(height):
        figure, axes = plt.subplots(figsize=(2, 1), dpi=50)
        axes.bar([0], [height])
        axes.set(ylim=(0, 3))
        return figure

    before = plt.get_fignums()
    shown = show_moving((bar(height) for height in (1, 2, 3)), seconds=1.5, plays=3)
    assert plt.get_fignums() == before, "every figure is closed"
    moving = Image.open(io.BytesIO(shown.data))
    assert shown.format == "png" and moving.info["loop"] == 3
    still, frames = np.asarray(moving.convert("RGB")).astype(int), []
    for number in range(1, moving.n_frames):  # 0 is the still
        moving.seek(number)
        frames.append(np.asarray(moving.convert("RGB")).astype(int))
    assert len(frames) == 3 and still.shape == (50, 100, 3)
    assert np.abs(still - frames[2]).max() < 30 < np.abs(still - frames[0]).max()


def test_what_moves_too_long_is_refused():
    from matplotlib import pyplot as plt

    with pytest.raises(ValueError, match="got 4 plays of 1.6 s"):
        show_moving([plt.figure(figsize=(1, 1))], plays=4)
    with pytest.raises(ValueError, match="got no figures"):
        show_moving([])
