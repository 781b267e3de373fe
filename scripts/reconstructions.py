"""Every reconstruction of scikit-image's photos, to look at without installing anything.

    python scripts/reconstructions.py                    out/reconstructions/, and a .zip of it
    python scripts/reconstructions.py -o FOLDER --photos 1 --weights FOLDER

    files/RATE/PHOTO.perco              what would be sent
    pictures/CODEC/RATE/PHOTO.png       what comes back: perco (the default), perco+steps=20,
                                        perco-estimate (the same file, no diffusion), autoencoder
    originals/PHOTO.png
    metrics.csv, metrics.json           a row a picture; command, commit, weights digest
    README.md                           what is what, and whose the photos are

Run it again after a break to go on. The photos are in scikit-image's package, whose documentation
of skimage.data names their authors and terms.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from perco_lite.evaluation.codecs.ours import PercoFiles
from perco_lite.evaluation.datasets import open_dataset
from perco_lite.evaluation.evaluate import evaluate
from perco_lite.evaluation.scoring import PHOTO_METRICS
from perco_lite.files import save_png, write_whole
from perco_lite.loading import load_codec

CODECS = ("perco", "perco+steps=20", "perco-estimate", "autoencoder")
README = """# Reconstructions of scikit-image's photos by perco_lite

Made by `{command}`, of commit {commit}, with weights {weights} (digest) on {machine}.

- `files/RATE/`: what would be sent, {files} files; `perco inspect` says what is in them
- `pictures/CODEC/RATE/`: what comes back of them. `perco`: as it paints by default;
  `perco+steps=20`: the same file in twenty steps; `perco-estimate`: without diffusion;
  `autoencoder`: nothing is sent, the most that the latents can hold
- `originals/`: the photos. They are inside the package scikit-image, whose documentation of
  `skimage.data` names their authors and terms
- `metrics.csv`, `metrics.json`: a row a picture, and means with intervals

Not measured: {missing}.
"""


def write_all(output: Path, photos: int = 0, weights: str | None = None, quiet: bool = False):
    """Write everything; returns the summary of ``evaluate``. ``photos``: so many; 0 = all."""
    codec, dataset = load_codec(weights), open_dataset("samples", limit=photos)
    codecs = [name for name in CODECS if name != "perco-estimate" or _estimates(codec)]
    where = dataset, output / "metrics.csv", codecs, PHOTO_METRICS, codec.rates, codec
    summary = evaluate(*where, quiet=quiet)
    files = PercoFiles(codec)
    for photo in dataset.photos:
        image, stem = dataset.load(photo), Path(photo.name).stem
        save_png(image, output / "originals" / f"{stem}.png")
        for rate in codec.rates:
            write_whole(
                output / "files" / rate / f"{stem}.perco", files.get(photo, image, rate).data
            )
    for made in sorted((output / "metrics_pictures").rglob("*.png")):
        codec_name, rate, name = made.relative_to(output / "metrics_pictures").parts
        target = output / "pictures" / codec_name / rate / f"{Path(Path(name).stem).stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, target)
    missing = [n for n, about in summary["metrics"].items() if "missing" in about]
    facts = {
        "command": summary["command"],
        "commit": ", ".join(summary["commits"]),
        "weights": summary["settings"]["weights"],
        "machine": summary["machine"],
        "files": len(dataset.photos) * len(codec.rates),
        "missing": ", ".join(missing) or "nothing that was asked for",
    }
    write_whole(output / "README.md", README.format(**facts).encode())
    return summary


def _estimates(codec) -> bool:
    return bool(codec.conditioner.config.decoder_width)


def pack(output: Path) -> Path:
    """Zip what is to be handed on; the pictures that ``evaluate`` goes on from stay outside."""
    listed = ("files", "pictures", "originals", "metrics.csv", "metrics.json", "README.md")
    staging = output.with_name(f".{output.name}.pack")
    shutil.rmtree(staging, ignore_errors=True)
    for name in listed:
        source, target = output / name, staging / output.name / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    archive = shutil.make_archive(str(output), "zip", staging, output.name)
    shutil.rmtree(staging)
    return Path(archive)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("out/reconstructions"))
    parser.add_argument("--photos", type=int, default=0, help="the first so many; 0 = all five")
    parser.add_argument("--weights", help="other weights than the bundled ones")
    options = parser.parse_args(arguments)
    summary = write_all(options.output, options.photos, options.weights)
    for one in summary["skipped"]:
        print(f"failed: {json.dumps(one)}", file=sys.stderr)
    print(pack(options.output))
    return 1 if summary["skipped"] else 0


if __name__ == "__main__":
    sys.exit(main())
