"""What the page answers to what a visitor does: parts of the page and what they show from then on.

    take_photo ──► photo, caption      compress ──► file, picture, figures      rivals
    take_file  ──► file                paint ──► picture      seeds ──► pictures, spread      damage

Each gives dicts {part: value}; those that take long yield them as they come. Nothing is kept from
one call to the next: the page holds the photo and the file, and sends them along.
"""

import base64
import binascii
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from perco_lite.app import panels
from perco_lite.app.damage import flip_bits, what_follows
from perco_lite.app.intake import Photo, check_caption, read_file, read_photo
from perco_lite.app.painting import MAX_SEEDS, Painter, Progress, spread
from perco_lite.app.rivals import draw_rivals
from perco_lite.coding.bitstream import UnpackedFile
from perco_lite.evaluation.codecs.classical import uniform_bytes
from perco_lite.metrics import Unavailable, bits_per_pixel, load_lpips, psnr

MAX_STEPS = 100
MAX_GUIDANCE = 20
_SPREAD_TOP = 64  # of 255: drawn white
Parts = dict[str, object]
NOTHING = dict.fromkeys(("file", "result", "details", "rivals", "seeds", "damage"), "")


class Answers:
    """Answers with one painter; ``describe`` writes a photo's caption, None: it is typed."""

    def __init__(self, painter: Painter, describe: Callable[[Image.Image], str] | None = None):
        self.painter, self.describe = painter, describe
        self._writer = ThreadPoolExecutor(1, "writer")
        self.rates = painter.codec.rates

    def take_photo(self, data: bytes | None, full_size: bool = False) -> Parts:
        """The photo as it will be compressed, what was done to it, and a caption."""
        if data is None:
            return NOTHING | {"about": "", "caption": ""}
        photo = read_photo(data, full_size)
        caption = ""
        if self.describe:
            caption = self._writer.submit(self.describe, photo.image).result()
        return self.show_photo(photo, caption)

    def show_photo(self, photo: Photo, caption: str) -> Parts:
        """A photo and its caption in the page, and nothing of the last one."""
        shown = {"photo": photo.image, "about": panels.sentence(str(photo)), "caption": caption}
        return NOTHING | shown

    def rate_bytes(self, size: tuple[int, int] | None, caption: str, made: dict[str, int]) -> str:
        """What each rate costs: what was ``made``, else the most it can be for this size."""
        rows = []
        for name in self.rates:
            if name in made:
                rows.append(f"<b>{name}: {made[name]:,} bytes</b>")
            elif size:
                rows.append(f"{name}: at most {uniform_bytes(name, *size, caption):,}")
        return f'<p class="perco-rates">{" · ".join(rows)}</p>'

    def compress(
        self,
        data: bytes | None,
        caption: str,
        rate: str,
        steps: int,
        guidance: float,
        seed: int,
    ) -> Iterator[Parts]:
        """Compress a photo and paint its file: first a sketch, then the picture, then figures."""
        if data is None:
            raise ValueError("there is no photo yet; choose one, or take a sample")
        caption = check_caption(caption)
        options = check_options(steps, guidance, seed)
        photo = read_photo(data, full_size=True).image  # shrunk when it was taken
        self._check_pixels(photo)
        yield {"status": panels.progress("compressing")}
        started = time.perf_counter()
        file_bytes = self.painter.compress(photo, caption, rate)
        compressed = time.perf_counter()
        file = read_file(file_bytes, self.painter.model_id)
        left, right = "original", f"painted from {len(file_bytes):,} bytes"
        yield {
            "file": encode_file(file_bytes),
            "rates": self.rate_bytes(photo.size, caption, {rate: len(file_bytes)}),
            "status": panels.progress("painting"),
        }
        painted = yield from self._paint(file, *options)
        seconds = time.perf_counter() - compressed
        picture = painted[0]
        show = panels.slider(photo, picture, left, right)
        rows = _size_rows(file_bytes, photo.size)
        rows.append(("PSNR", f"{psnr(photo, picture):.2f} dB"))
        wait = [("seconds", f"{compressed - started:.1f} to compress, {seconds:.1f} to paint")]
        status = panels.sentence(self.painter.unheard(caption))
        yield {
            "result": panels.result(show, file_bytes),
            "details": panels.details(file, rows + wait),
            "status": status,
        }
        rows.append(("LPIPS", _lpips(photo, picture)))
        yield {"details": panels.details(file, rows + wait)}

    def rivals(self, data: bytes | None, file: str) -> Iterator[Parts]:
        """The rivals at this file's bytes."""
        if data is None or not file:
            yield {"rivals": ""}
            return
        photo = read_photo(data, full_size=True).image
        yield {"rivals": panels.progress("AVIF and WebP in the same bytes")}
        for drawn in draw_rivals(photo, len(decode_file(file))):
            yield {"rivals": drawn}

    def take_file(self, data: bytes | None) -> Parts:
        """A file that was handed in, and what is in it."""
        if data is None:
            return NOTHING | {"about_file": ""}
        file = read_file(data, self.painter.model_id)
        caption = f"caption: {file.caption!r}" if file.caption else "no caption"
        about = f"{len(data):,} bytes, {file.width:,}×{file.height:,}, rate {file.rate.name}"
        about = panels.sentence(f"{about}, {caption}")
        return NOTHING | {"file": encode_file(data), "about_file": about}

    def paint(self, file: str, steps: int, guidance: float, seed: int) -> Iterator[Parts]:
        """Paint a file from itself alone."""
        if not file:
            raise ValueError("there is no file yet; choose one, or compress a photo")
        options = check_options(steps, guidance, seed)
        data = decode_file(file)
        parsed = read_file(data, self.painter.model_id)
        started = time.perf_counter()
        painted = yield from self._paint(parsed, *options)
        label = f"painted from {len(data):,} bytes and nothing else"
        show = panels.result(panels.picture(painted[0], label, label), data)
        rows = _size_rows(data, (parsed.width, parsed.height))
        rows.append(("seconds", f"{time.perf_counter() - started:.1f} to paint"))
        yield {"result": show, "details": panels.details(parsed, rows), "status": ""}

    def seeds(
        self, file: str, steps: int, guidance: float, seed: int, count: int
    ) -> Iterator[Parts]:
        """Pictures of several seeds from the same file, and where they differ."""
        if not file:
            raise ValueError("there is no file yet; compress a photo first, or open a file")
        if not 2 <= count <= MAX_SEEDS:
            raise ValueError(f"got {count} seeds, expected 2 to {MAX_SEEDS}")
        steps, guidance, seed = check_options(steps, guidance, seed)
        parsed = read_file(decode_file(file), self.painter.model_id)
        seeds = [seed + i for i in range(int(count))]
        painted = yield from self._paint(parsed, steps, guidance, seeds, part="seeds")
        far = spread(painted)
        figures = [
            panels.picture(image, f"seed {s}", f"seed {s}")
            for s, image in zip(seeds, painted, strict=True)
        ]
        label = (
            f"where they differ: standard deviation over seeds, mean {far.mean():.1f} of 255; "
            f"black is 0, white {_SPREAD_TOP} and more"
        )
        figures.append(panels.picture(panels.heat_map(far, _SPREAD_TOP), label, label))
        yield {"seeds": panels.gallery(figures)}

    def damage(self, file: str, count: int, seed: int) -> Parts:
        """The file with bits flipped, and what a decoder says to that."""
        if not file:
            raise ValueError("there is no file yet; compress a photo first, or open a file")
        *_, seed = check_options(0, 0, seed)
        data = decode_file(file)
        damaged, places = flip_bits(data, int(count), seed)
        said = what_follows(damaged, self.painter.model_id)
        where = ", ".join(f"{place % 8} of byte {place // 8}" for place in places[:8])
        where += ", …" if len(places) > 8 else ""
        told = f"flipped: bit {where}. " + (
            f"A decoder says: {said}" if said else "The file decodes all the same."
        )
        shown = panels.sentence(told, "error" if said else "note")
        shown += panels.hexadecimal(damaged, {place // 8 for place in places})
        return {"damage": shown + panels.download(damaged, "damaged.perco", "save this file")}

    def _paint(
        self, file: UnpackedFile, steps: int, guidance: float, seed, part: str = "status"
    ) -> Generator[Parts, None, list[Image.Image]]:
        """Yield the progress, shown in a part of the page; return the pictures."""
        seeds = seed if isinstance(seed, list) else [seed]
        for painted in self.painter.paint(file, steps, guidance, seeds):
            if isinstance(painted, Progress):
                yield {part: panels.progress("painting", painted.done, painted.steps)}
        return painted

    def _check_pixels(self, photo: Image.Image) -> None:
        pixels, most = photo.width * photo.height, self.painter.max_pixels
        if pixels > most:
            raise ValueError(
                f"the photo is {photo.width:,}×{photo.height:,}, at most {most / 1e6:.1f} "
                "megapixels are painted here; untick full size, and choose it again"
            )


Options = tuple[int | None, float | None, int]  # steps and guidance: None = what suits the weights


def check_options(steps: int, guidance: float, seed: int) -> Options:
    """Steps, guidance (0: what suits the weights) and seed, to paint with; else ValueError."""
    for name, value, most, example in (
        ("steps", steps, MAX_STEPS, "20 is usual"),
        ("guidance", guidance, MAX_GUIDANCE, "1 is off"),
        ("seed", seed, 2**53 - 1, "0 will do"),  # larger numbers are none of a browser's
    ):
        if not isinstance(value, int | float) or not 0 <= value <= most:
            raise ValueError(f"got {name} {value!r:.40}, expected 0 to {most:,}; {example}")
    return int(steps) or None, float(guidance) or None, int(seed)


def encode_file(data: bytes) -> str:
    """A file as text, which the page holds."""
    return base64.b64encode(data).decode("ascii")


def decode_file(text: str) -> bytes:
    """The file again."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the page lost its file; compress the photo again") from error


def _size_rows(data: bytes, size: tuple[int, int]) -> list[tuple[str, str]]:
    times = 3 * size[0] * size[1] / len(data)
    return [
        ("bytes", f"{len(data):,} ({times:,.0f} times fewer than the pixels)"),
        ("bits per pixel", f"{bits_per_pixel(data, *size):.4f}"),
    ]


def _lpips(photo: Image.Image, picture: Image.Image) -> str:
    try:
        value = load_lpips("alex")(photo, picture)
    except Unavailable as error:
        return f"not measured ({str(error).removeprefix('LPIPS: ')})"
    return "not measured: too small" if value is None else f"{value:.3f} (alex)"
