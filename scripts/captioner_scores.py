"""How good the captioner's captions are: print a table and store it in data/results/.

    python scripts/captioner_scores.py [--captioner FOLDER] [--features out/train/captioner]

On the photos of `val` of PERCO_LITE_DATA, five references each, beside a sentence that is the same
for all, the caption of the training photo whose features are nearest (only with --features, the
output of `perco train captioner`), and people: a photo's first caption against its other four,
which is harder. Bytes: of the caption alone, by the table that codes captions; of people, the mean
of all five.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from perco_lite.captioning import Captioner
from perco_lite.captioning.captioner import BEAMS, search
from perco_lite.captioning.photo_features import squash
from perco_lite.coding.caption_model import bundled
from perco_lite.data import find_data
from perco_lite.evaluation.metrics.captions import PROTOCOL, score_captions
from perco_lite.files import write_csv
from perco_lite.training.caption_photos import CaptionPhotos, open_features
from perco_lite.training.shards import ShardPhoto, read_training_photos

RESULTS = Path(__file__).parents[1] / "data" / "results" / "captioner.csv"
AT_ONCE = 20  # photos
TEMPLATE = "A man and a dog are on the grass."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captioner", type=Path, help="default: the bundled one")
    parser.add_argument("--features", type=Path, help="output of `perco train captioner`")
    parser.add_argument("--photos", type=int, help="at most this many")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    folder = find_data("val")
    if folder is None:
        parser.error("no photos: PERCO_LITE_DATA has no val/; see data/README.md")
    photos = [p for p in read_training_photos(folder) if len(p.captions) > 1][: options.photos]
    captioner = Captioner.from_pretrained(options.captioner)
    features = see(captioner, photos)
    references = [photo.captions for photo in photos]
    rows = [row("one for all: " + TEMPLATE, [TEMPLATE] * len(photos), references)]
    if options.features:
        near = nearest(features, open_features(options.features))
        rows.append(row("of the nearest training photo", near, references))
    for beams in (1, BEAMS):
        name = "ours, greedy" if beams == 1 else f"ours, {beams} beams"
        found = [s for part in features for s in search(captioner.decoder, part, beams)]
        lines = [captioner.sentence(symbols) for symbols in found]
        rows.append(row(name, lines, references, cpu_seconds=one_by_one(captioner, photos, beams)))
    first = [texts[0] for texts in references]
    rows.append(row("people, against the other four", first, [t[1:] for t in references]))
    every = [text for texts in references for text in texts]
    rows[-1] |= {"bytes": statistics.fmean(map(cost, every))}
    write_csv(options.output, rows, digits=4)
    for one in rows:
        print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else str(v) for k, v in one.items()))
    print(PROTOCOL)


def one_by_one(captioner: Captioner, photos: list[ShardPhoto], beams: int) -> float:
    """Seconds of computing for a caption, photo after photo; on one thread, what a clock shows."""
    few = photos[:AT_ONCE]
    start = time.process_time()
    for photo in few:
        captioner(photo.image, beams)
    return (time.process_time() - start) / len(few)


def cost(text: str) -> int:
    """Bytes of a caption; what the table does not hold is UTF-8."""
    table = bundled()
    return len(table.encode(text)) if table.holds(text) else len(text.encode())


def row(writer: str, captions: list[str], references: list[list[str]], **more: float) -> dict:
    """A line of the table."""
    scores = score_captions(captions, references)
    price = statistics.fmean(map(cost, captions))
    return {"writer": writer, "photos": len(captions), **scores, "bytes": price, **more}


@torch.inference_mode()
def see(captioner: Captioner, photos: list[ShardPhoto]) -> list[torch.Tensor]:
    """Features (B,49,1280) of the photos, a few at once."""
    parts = [photos[i : i + AT_ONCE] for i in range(0, len(photos), AT_ONCE)]
    return [captioner.eyes(squash([photo.image for photo in part])) for part in parts]


def nearest(features: list[torch.Tensor], known: CaptionPhotos) -> list[str]:
    """First caption of the training photo with the most alike features, by the cosine of means."""

    def mean(features: torch.Tensor) -> torch.Tensor:
        return F.normalize(features.mean(1), dim=-1)

    numbers = list(range(len(known.keys)))
    parts = [numbers[i : i + 256] for i in range(0, len(numbers), 256)]
    theirs = torch.cat([mean(known.features(part, [0] * len(part))) for part in parts])
    best = (mean(torch.cat(features)) @ theirs.T).max(1)
    print(f"most alike: {float(best.values.max()):.3f} (cosine of mean features)")
    return [known.captions[number][0] for number in best.indices.tolist()]


if __name__ == "__main__":
    main()
