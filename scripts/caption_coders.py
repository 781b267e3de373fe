"""What a caption costs with each coder: print a table and store it in data/results/.

    python scripts/caption_coders.py [captions.txt] [-o data/results/caption_coders.csv]

Default: the held-out COCO captions as written, `captions/coco_heldout.txt` of PERCO_LITE_DATA.
Everything that learns (Brotli's and zstd's dictionaries, Huffman's letters, our table) learns from
`captions/*_train.txt` beside it. Bits per character are of whole bytes, caption by caption, as they
would stand in a file; a coder whose package is missing is named and left empty.
"""

import argparse
import heapq
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from perco_lite.coding.caption_model import bundled
from perco_lite.coding.entropy_coding import (
    DEFLATE_DICTIONARY,
    deflate,
    dictionary,
    pack_text,
    unpack_text,
    zlib_bytes,
)
from perco_lite.data import find_data
from perco_lite.files import write_csv
from perco_lite.training.caption_model import read_sentences

RESULTS = Path(__file__).parents[1] / "data" / "results" / "caption_coders.csv"
DICTIONARY = 110 << 10  # bytes of zstd's trained dictionary, its own default
Coder = Callable[[str], int]


def huffman(train: list[str]) -> Coder:
    """Letter by letter, with an end mark; unknown letters at 8 bits a byte behind an escape."""
    counts = Counter(letter for text in train for letter in [*text, "end"])
    counts["escape"] = 1
    heap = [(n, i, (letter,)) for i, (letter, n) in enumerate(counts.items())]
    lengths = Counter()
    heapq.heapify(heap)
    while len(heap) > 1:
        (n, i, one), (m, _, other) = heapq.heappop(heap), heapq.heappop(heap)
        lengths.update(one + other)
        heapq.heappush(heap, (n + m, i, one + other))

    def coder(text: str) -> int:
        bits = lengths["end"]
        for letter in text:
            known = letter in lengths
            bits += lengths[letter] if known else lengths["escape"] + 8 * len(letter.encode())
        return -(-bits // 8)

    return coder


def brotli(train: list[str]) -> Coder:
    import brotli

    return lambda text: len(brotli.compress(text.encode(), mode=brotli.MODE_TEXT, quality=11))


def zstd(train: list[str]) -> Coder:
    import zstandard

    samples = [text.encode() for text in train]
    dictionary = zstandard.train_dictionary(DICTIONARY, samples, level=19)
    small = dict.fromkeys(("write_content_size", "write_checksum", "write_dict_id"), False)
    small["format"] = zstandard.FORMAT_ZSTD1_MAGICLESS
    parameters = zstandard.ZstdCompressionParameters.from_level(22, **small)
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters)
    return lambda text: len(compressor.compress(text.encode()))


def deflate_trained(train: list[str]) -> Coder:
    """Deflate behind 32 KB of training captions, the most its window reaches."""
    dictionary = "\n".join(train).encode()[-(32 << 10) :]
    return lambda text: len(deflate(text.encode(), dictionary))


CODERS: dict[str, Callable[[list[str]], Coder]] = {
    "UTF-8": lambda train: lambda text: len(text.encode()),
    "zlib -9 (the paper)": lambda train: zlib_bytes,
    "Huffman, letters of the training captions": huffman,
    "raw deflate": lambda train: lambda text: len(deflate(text.encode())),
    "deflate, our phrases (format version 1)": lambda train: (
        lambda text: len(deflate(text.encode(), dictionary()))
    ),
    "deflate, 32 KB of training captions": deflate_trained,
    "Brotli 11, its own dictionary": brotli,
    "zstd 22, trained dictionary": zstd,
    "caption table, ours": lambda train: lambda text: len(bundled().encode(text)),
    "pack_text, ours (shortest of four)": lambda train: lambda text: len(pack_text(text, True)[1]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", nargs="?", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    folder = find_data("captions")
    path = options.captions or (folder and folder / "coco_heldout.txt")
    if not path:
        raise SystemExit("no captions: give a file, or set PERCO_LITE_DATA (see data/README.md)")
    heldout = read_sentences([path])
    train = read_sentences(sorted(folder.glob("*_train.txt"))) if folder else []
    characters = sum(map(len, heldout))
    about, rows = {"captions": len(heldout), "characters": characters}, []
    print(f"{len(heldout)} captions, {characters} characters, from {path.name}")
    print(f"{'coder':42} bytes a caption  bits a character")
    for name, build in CODERS.items():
        try:
            coder = build(train)
        except ImportError as error:
            print(f"{name:42} not measured: {error}")
            rows.append({"coder": name, **about})
            continue
        mean = sum(map(coder, heldout)) / len(heldout)
        bits = 8 * mean * len(heldout) / characters
        print(f"{name:42} {mean:15.2f}  {bits:16.3f}")
        figures = {"bytes_per_caption": f"{mean:.3f}", "bits_per_character": f"{bits:.4f}"}
        rows.append({"coder": name, **about, **figures})
    start = time.process_time()
    coded = [pack_text(text, with_table=True) for text in heldout]
    packed = time.process_time()
    assert [unpack_text(*code) for code in coded] == heldout, "a caption did not come back"
    read = time.process_time()
    code_ms, read_ms = (1000 * took / len(heldout) for took in (packed - start, read - packed))
    print(
        f"round trip checked; {code_ms:.2f} ms to code a caption, {read_ms:.2f} ms to read it; "
        f"{sum(code[0] <= DEFLATE_DICTIONARY for code in coded)} not with the table; "
        f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    )
    write_csv(options.output, rows)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
