"""Write golden/ beside this file: files coded with the index prior, one a rate, from samples.

    python tests/coding/make_golden.py

For each rate the first photo that the prior makes shorter, beginning with another one at each.
Run it only when the bundled weights or their index prior change on purpose: until then, the files
must decode to the same indices and captions for ever. Those that need no prior (all of version 1,
and some of version 2) stay as they are: every later program reads them.
"""

import json
from pathlib import Path

from perco_lite.coding.bitstream import unpack
from perco_lite.coding.file_header import VERSIONS
from perco_lite.coding.index_prior import find_prior, prior_table_id
from perco_lite.data import skimage_photos
from perco_lite.loading import load_codec

GOLDEN = Path(__file__).parent / "golden"
VERSION = VERSIONS[-1]
# no multiples of any stride; small enough to list the indices, large enough for a prior to pay
SIZES = {"0.0019": (500, 410), "0.0098": (250, 210)}
OTHER_SIZE = (150, 100)


def main() -> None:
    codec = load_codec()
    missing = [rate for rate in codec.rates if find_prior(codec.model_id, rate) is None]
    if missing:
        raise SystemExit(f"no index prior for {missing}: train it with `perco train prior` first")
    earlier = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))
    made = {}
    samples = skimage_photos()
    for number, rate in enumerate(codec.rates):
        for sample in samples[number:] + samples[:number]:
            image = sample.image.crop((0, 0, *SIZES.get(rate, OTHER_SIZE)))
            data = codec.compress(image, sample.caption, rate)
            if unpack(data).header.prior_coded:
                break
        else:
            raise SystemExit(f"the prior makes none of the photos shorter at {rate}")
        file = unpack(data)
        made[f"v{VERSION}_prior_{Path(sample.name).stem}_{rate}.perco"] = (
            data,
            {
                "version": VERSION,
                "prior": prior_table_id(),
                "rate": file.rate.name,
                "width": file.width,
                "height": file.height,
                "caption": file.caption,
                "model_id": file.model_id,
                "bytes": data.hex(),
                "indices": file.indices.tolist(),
            },
        )
    table = {name: row for name, row in earlier.items() if "prior" not in row}
    for name in earlier.keys() - table.keys():
        (GOLDEN / name).unlink()
    for name, (data, row) in made.items():
        (GOLDEN / name).write_bytes(data)
        table[name] = row
    text = json.dumps(table, indent=1, ensure_ascii=False)
    (GOLDEN / "golden.json").write_text(text + "\n", encoding="utf-8")
    print(f"wrote {len(made)} of {len(table)} files to {GOLDEN}")


if __name__ == "__main__":
    main()
