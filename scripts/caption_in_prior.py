"""Where the index prior's gain comes from: frequencies, neighbours, caption. Bits an index, a CSV.

    python scripts/caption_in_prior.py [--cache out/index_prior] [-o data/results/index_prior.csv]

On the Kodak photos and on COCO's (coco_eval), none of which was trained on, at every rate:
log2 K; the order-0 code with the frequencies of training photos, and with the set's own, which no
decoder knows; the bundled prior. Bytes saved are against log2 K; file_bytes are of whole files.

The bundled prior does not see the caption. What it would add is measured by an experiment at two
rates: the same network with and without a bag of the caption's words, trained from the same start
on the same batches of captioned training photos, in floats; figures are on the photos of val/.

Grids of training photos are made once for the same weights and kept. --cache names a folder that
has them already: grids_RATE.npz with `flat` indices, `shapes` (h, w) and `photos`, whose first
number counts training photos in the order in which they are read.
"""

import argparse
import io
import math
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from perco_lite.coding.bitstream import PercoFile, pack
from perco_lite.coding.index_prior import find_prior, grid_contexts
from perco_lite.data import find_data, kodak_photos, list_photos, load_photo, read_caption_lists
from perco_lite.evaluation.metrics.intervals import bootstrap_interval
from perco_lite.files import write_csv, write_whole
from perco_lite.loading import load_codec
from perco_lite.training.index_prior import PriorNetwork, prior_bits, train_network
from perco_lite.training.shards import find_training_data, read_training_photos

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "data" / "results" / "index_prior.csv"
CAPTION_RATES = ("0.0019", "0.0098")
EVERY = 6  # of the training photos, where there is no cache
STEPS, BATCH, WIDTH, WORDS_SEEN, WORDS_READ = 2000, 1024, 32, 5, 24
Grid = np.ndarray  # (h, w) int64


class CaptionedNetwork(PriorNetwork):
    """The prior's network; texts (n,24) of word numbers, 0 for none, add a vector of their words.

    The words start at zero, so that with and without them training starts from the same.
    """

    def __init__(self, codebook_size: int, words: int):
        super().__init__(codebook_size, WIDTH)
        self.words = nn.EmbeddingBag(words + 1, WIDTH, mode="mean", padding_idx=0)
        nn.init.zeros_(self.words.weight)

    def forward(self, contexts: Tensor, texts: Tensor | None = None) -> Tensor:
        """Contexts (n,7) -> logits (n,K)."""
        return super().forward(contexts, None if texts is None else self.words(texts))


def training_grids(codec, rate: str, cache: Path, data) -> tuple[list[Grid], list[int]]:
    """Grids of training photos, and the number of the photo of each."""
    path = cache / f"grids_{rate}.npz"
    if not path.exists() or made_by(path) not in (None, codec.model_id):
        grids, photos = [], []
        for number, photo in enumerate(tqdm(read_training_photos(data), desc=f"grids {rate}")):
            if number % EVERY == 0 and photo.captions:
                grids.append(grid_of(codec, photo.image, rate))
                photos.append([number, photo.image.height // 8])
        stream = io.BytesIO()
        flat = np.concatenate([grid.ravel() for grid in grids]).astype(np.int16)
        shapes = np.array([grid.shape for grid in grids])
        kept = {"flat": flat, "shapes": shapes, "photos": np.array(photos)}
        np.savez_compressed(stream, **kept, model_id=codec.model_id)
        write_whole(path, stream.getvalue())
    with np.load(path) as kept:
        flat, shapes, photos = (kept[name] for name in ("flat", "shapes", "photos"))
    parts = np.split(flat.astype(np.int64), np.cumsum(shapes.prod(1))[:-1])
    grids = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return grids, photos[:, 0].tolist()


def grid_of(codec, image, rate: str) -> Grid:
    return codec.encode(image, rate)[0].cpu().numpy().astype(np.int64)


def made_by(path: Path) -> int | None:
    """Which weights' grids a file of the cache has, None where it does not say."""
    with np.load(path) as kept:
        return int(kept["model_id"]) if "model_id" in kept else None


def measured_photos() -> dict[str, list[tuple]]:
    """Name of a set -> (image or its path, caption) of each photo."""
    sets = {"kodak": [(photo.image, photo.caption) for photo in kodak_photos()]}
    folder = find_data("coco_eval")
    if folder is not None:
        texts = read_caption_lists(folder / "captions.json")
        sets["coco_eval"] = [(p, texts.get(p.name, [""])[0]) for p in list_photos(folder)]
    return {name: photos for name, photos in sets.items() if photos}


def order_0_bits(counts: np.ndarray, grid: Grid) -> float:
    """Mean bits an index of a grid with the frequencies ``counts``."""
    return float(np.log2(counts.sum() / counts[grid]).mean())


def row(rate: str, photos: str, code: str, bits, uniform: float, sizes, gain=False) -> dict:
    """A line of the table: mean, interval, extremes, and bytes saved of an index grid.

    ``gain``: ``bits`` are those saved, not those spent.
    """
    low, high = bootstrap_interval(bits) or (math.nan, math.nan)
    spared = bits if gain else [uniform - b for b in bits]
    saved = np.mean([b * size / 8 for b, size in zip(spared, sizes, strict=True)])
    percent = 100 * np.mean(spared) / uniform
    made = {"rate": rate, "photos": photos, "count": len(bits), "code": code}
    made |= {"bits": np.mean(bits), "bits_low": low, "bits_high": high}
    made |= {"bits_minimum": min(bits), "bits_maximum": max(bits)}
    return made | {"saved_percent": percent, "bytes_saved": saved}


def gain_rows(codec, rate: str, name: str, photos: list[tuple], counts: np.ndarray) -> list[dict]:
    """Rows of all codes on one set of photos at one rate."""
    size, uniform = codec.rate(rate).codebook_size, codec.rate(rate).bits_per_index
    prior, grids, files = find_prior(codec.model_id, rate), [], []
    for image, caption in tqdm(photos, desc=f"{name} {rate}"):
        image = load_photo(image) if isinstance(image, Path) else image
        grid = grid_of(codec, image, rate)
        file = (codec.rate(rate), image.width, image.height, caption, grid)
        files.append([len(pack(PercoFile(*file, m), version=2)) for m in (0, codec.model_id)])
        grids.append(grid)
    own = np.bincount(np.concatenate([grid.ravel() for grid in grids]), minlength=size)
    codes = {
        "uniform": [uniform] * len(grids),
        "order 0, training photos": [order_0_bits(counts + 1, grid) for grid in grids],
        "order 0, these photos": [order_0_bits(own, grid) for grid in grids],
    }
    if prior is None:
        print(f"{rate}: not measured: no index prior for these weights; perco train prior")
    else:
        codes["prior: neighbours and height"] = [prior_bits(prior, [grid]) for grid in grids]
    sizes = [grid.size for grid in grids]
    rows = [row(rate, name, code, bits, uniform, sizes) for code, bits in codes.items()]
    for line, column in ((rows[0], 0), (rows[-1], 1))[: 1 + (prior is not None)]:
        line["file_bytes"] = np.mean([pair[column] for pair in files])
    return rows


def word_numbers(texts: list[list[str]]) -> dict[str, int]:
    """Numbers from 1 of the words that occur often enough."""
    counts = Counter(word for several in texts for text in several for word in split(text))
    return {w: i for i, w in enumerate((w for w, n in counts.items() if n >= WORDS_SEEN), 1)}


def split(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def numbered(text: str, numbers: dict[str, int]) -> list[int]:
    """Word numbers of a caption, filled up with 0."""
    found = [numbers[word] for word in split(text) if word in numbers][:WORDS_READ]
    return found + [0] * (WORDS_READ - len(found))


def fit(size: int, contexts, codes, which, texts: Tensor, words: int, seed: int, read: bool):
    """A network trained as ``fit_prior`` trains its own; ``read``: with captions.

    ``which`` (n,): the photo of each index; ``texts`` (photos,c,24): its captions, one drawn each
    time. The draws are the same with and without captions.
    """
    torch.manual_seed(seed)
    network = CaptionedNetwork(size, words)
    generator = torch.Generator().manual_seed(seed)

    def draw() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(codes), (BATCH,), generator=generator)
        caption = torch.randint(texts.shape[1], (BATCH,), generator=generator)
        text = texts[which[chosen], caption] if read else None
        return network(contexts[chosen], text), codes[chosen]

    train_network(network, codes, draw, STEPS)
    return network.eval()


@torch.no_grad()
def bits_with(network, size: int, grids: list[Grid], texts: list[list[int]] | None) -> list[float]:
    """Mean bits an index of each grid, with one text each or none."""
    bits = []
    for number, grid in enumerate(grids):
        contexts = torch.from_numpy(grid_contexts(grid, size))
        text = None if texts is None else torch.tensor([texts[number]] * len(contexts))
        loss = F.cross_entropy(network(contexts, text), torch.from_numpy(grid.ravel()))
        bits.append(loss.item() / math.log(2))
    return bits


def caption_rows(codec, rate: str, grids, photos, captions, held_out, seed: int = 0) -> list[dict]:
    """The experiment at one rate; ``held_out``: (image, caption) of photos never trained on."""
    size, uniform = codec.rate(rate).codebook_size, codec.rate(rate).bits_per_index
    pairs = [(g, p) for g, p in zip(grids, photos, strict=True) if captions[p]]
    order = {photo: i for i, photo in enumerate(sorted({p for _, p in pairs}))}
    several = [(captions[p] * 5)[:5] for p in order]
    numbers = word_numbers(several)
    texts = torch.tensor([[numbered(text, numbers) for text in one] for one in several])
    contexts = torch.from_numpy(np.concatenate([grid_contexts(g, size) for g, _ in pairs]))
    codes = torch.from_numpy(np.concatenate([g.ravel() for g, _ in pairs]))
    which = torch.from_numpy(np.repeat([order[p] for _, p in pairs], [g.size for g, _ in pairs]))
    data = (size, contexts, codes, which, texts, len(numbers), seed)
    without, reading = (fit(*data, read) for read in (False, True))
    test = [grid_of(codec, image, rate) for image, _ in held_out]
    own = [numbered(text, numbers) for _, text in held_out]
    bits = {
        "experiment: neighbours and height": bits_with(without, size, test, None),
        "experiment: and the caption": bits_with(reading, size, test, own),
        "experiment: and another photo's": bits_with(reading, size, test, own[1:] + own[:1]),
    }
    sizes = [grid.size for grid in test]
    rows = [row(rate, "val", code, values, uniform, sizes) for code, values in bits.items()]
    first, second, third = bits.values()
    for code, worse in (("over none", first), ("over another photo's", third)):
        gains = [a - b for a, b in zip(worse, second, strict=True)]
        name = f"experiment: gain of the caption {code}"
        rows.append(row(rate, "val", name, gains, uniform, sizes, gain=True))
    print(f"{rate}: {len(pairs)} grids of {len(order)} captioned photos, {len(numbers)} words")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "out" / "index_prior")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    data, val, sets = find_training_data(None), find_data("val"), measured_photos()
    if not sets or val is None:
        raise SystemExit("no Kodak photos or no val/: set PERCO_LITE_DATA (see data/README.md)")
    codec, rows = load_codec(device="cpu"), []
    captions = [photo.captions for photo in tqdm(read_training_photos(data), desc="captions")]
    held_out = [(p.image, p.captions[0]) for p in read_training_photos(val) if p.captions]
    for rate in codec.rates:
        grids, photos = training_grids(codec, rate, options.cache, data)
        flat = np.concatenate([grid.ravel() for grid in grids])
        counts = np.bincount(flat, minlength=codec.rate(rate).codebook_size)
        for name, measured in sets.items():
            rows += gain_rows(codec, rate, name, measured, counts)
        if rate in CAPTION_RATES:
            rows += caption_rows(codec, rate, grids, photos, captions, held_out)
    command = {"command": " ".join(["python", "scripts/caption_in_prior.py", *sys.argv[1:]])}
    columns = [*dict.fromkeys([*rows[0], "file_bytes"]), "command"]
    write_csv(options.output, [one | command for one in rows], columns, digits=6)
    for one in rows:
        bits = f"{one['bits']:8.4f} [{one['bits_low']:.4f}, {one['bits_high']:.4f}]"
        name = f"{one['rate']} {one['photos']:10} {one['code']:45}"
        print(f"{name} {bits}, {one['saved_percent']:.2f} % saved")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
