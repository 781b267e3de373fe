"""Write tests/golden/: one file a rate, made with the bundled weights from scikit-image's photos.

    python tests/make_golden.py

Run it only when the format or the bundled weights change on purpose: until then, the files must
decode to the same indices and captions for ever. Only the files of the newest version of the
format are made: those of earlier ones stay as they are.
"""

import json
from pathlib import Path

from perco_lite.bitstream import pack, unpack
from perco_lite.data import skimage_photos
from perco_lite.file_header import VERSIONS
from perco_lite.loading import load_codec

GOLDEN = Path(__file__).parent / "golden"
VERSION = VERSIONS[-1]


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    codec = load_codec()
    earlier = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))
    table = {name: row for name, row in earlier.items() if row["version"] < VERSION}
    for sample, rate in zip(skimage_photos(), codec.rates, strict=False):
        # a size that is no multiple of any stride, and small enough to list the indices
        image = sample.image.crop((0, 0, 150, 100))
        # one of the captions as the trained table would not have it
        caption = sample.caption if rate != "0.0313" else "Kaffee ☕ 42 °C"
        data = pack(unpack(codec.compress(image, caption, rate)), VERSION)
        name = f"v{VERSION}_{Path(sample.name).stem}_{rate}.perco"
        (GOLDEN / name).write_bytes(data)
        file = unpack(data)
        table[name] = {
            "version": VERSION,
            "rate": file.rate.name,
            "width": file.width,
            "height": file.height,
            "caption": file.caption,
            "model_id": file.model_id,
            "bytes": data.hex(),
            "indices": file.indices.tolist(),
        }
    text = json.dumps(table, indent=1, ensure_ascii=False)
    (GOLDEN / "golden.json").write_text(text + "\n", encoding="utf-8")
    print(f"wrote {len(table)} files to {GOLDEN}")


if __name__ == "__main__":
    main()
