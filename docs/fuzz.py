"""Damage `.perco` files in every way and see that nothing but a BitstreamError comes of it.

    python docs/fuzz.py [--files 1000000] [--seed 0] [-o data/results/fuzz.json]

Half of the damaged files get a checksum that fits, so that what lies behind it is reached too. For
the other half, files that still decode are counted: a checksum of 16 bits lets one in 65,536 pass.
Each file is timed; the memory of every 50th is traced, and the whole process's peak is looked at.
Exits with 1 and the file's bytes if anything else happens.
"""

import argparse
import json
import random
import resource
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np

from perco_lite.batch import write_whole
from perco_lite.bitstream import BitstreamError, PercoFile, pack, unpack
from perco_lite.entropy_coding import MAX_CAPTION_BYTES, caption_table_id
from perco_lite.file_header import checksum, mixed_id
from perco_lite.index_prior import prior_table_id
from perco_lite.rates import RATES

ROOT = Path(__file__).parents[1]
MAX_SECONDS, MAX_BYTES = 0.050, 64 << 20
CAPTIONS = ("", "a red barn beside a pond", "Kaffee ☕ 42 °C", "na " * 90, "§" * 300, "zyx " * 60)


def seeds() -> list[bytes]:
    """Whole files to damage: the golden ones, and version 2's of every rate, size and caption."""
    files = [path.read_bytes() for path in sorted((ROOT / "tests" / "golden").glob("*.perco"))]
    numbers = np.random.default_rng(0)
    for i, rate in enumerate(RATES):
        for j, (width, height) in enumerate([(768, 512), (97, 61), (1, 1)]):
            indices = numbers.integers(0, rate.codebook_size, rate.grid_shape(height, width))
            caption = CAPTIONS[(i + j) % len(CAPTIONS)]
            file = PercoFile(rate, width, height, caption, indices, 0x79F1)
            files.append(pack(file, version=2))
    return files


def damage(data: bytes, pool: list[bytes], chance: random.Random) -> bytes:
    """One to three kinds of damage; mostly near the start, where the header is, or the end."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        size = max(len(data), 1)
        near = chance.choice((12, size, size))
        at = min(chance.randrange(near), size - 1)
        at = size - 1 - at if chance.random() < 0.3 else at
        kind = chance.randrange(7)
        if kind == 0 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 2:
            del data[at : at + chance.choice((1, 2, 5, size))]
        elif kind == 3:
            data[at:at] = chance.randbytes(chance.choice((1, 2, 9, 300)))
        elif kind == 4:
            data[at:at] = data[at : at + chance.choice((2, 30))]
        elif kind == 5:
            other = chance.choice(pool)
            data[at:] = other[chance.randrange(len(other)) :]
        else:
            data[at:] = chance.randbytes(max(len(data) - at, 0))
    return bytes(data)


def sealed(body: bytes) -> bytes:
    """A body with the checksum that makes it pass for whole."""
    flags = body[1] if len(body) > 1 and body[0] == 0xB2 else 0
    table_id = caption_table_id() if flags & 0b1000 else 0
    prior_id = prior_table_id() if flags & 0b0100 else 0
    return body + checksum(body, mixed_id(table_id, prior_id))


def check(data: bytes) -> bool:
    """Whether this decodes; raises AssertionError where it comes to something impossible."""
    try:
        file = unpack(data)
    except BitstreamError as error:
        assert str(error) and "\n" not in str(error), "an error that says nothing, or too much"
        return False
    assert file.indices.shape == file.rate.grid_shape(file.height, file.width)
    assert 0 <= file.indices.min() and file.indices.max() < file.rate.codebook_size
    assert len(file.caption.encode("utf-8", "surrogatepass")) <= MAX_CAPTION_BYTES
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "data/results/fuzz.json")
    options = parser.parse_args()
    chance, pool = random.Random(options.seed), seeds()
    for data in pool:
        assert check(data), "a whole file did not decode"
    start_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest = largest = 0
    decoded, tried = {"sealed": 0, "as is": 0}, {"sealed": 0, "as is": 0}
    for number in range(options.files):
        original = chance.choice(pool)
        data, kind = damage(original, pool, chance), chance.choice(("sealed", "as is"))
        data = sealed(data[:-2]) if kind == "sealed" else data
        if data in pool:
            continue
        traced = number % 50 == 0
        if traced:
            tracemalloc.start()
        start = time.process_time()
        try:
            decoded[kind] += check(data)
        except BaseException:
            print(f"file {number} of seed {options.seed}: {data.hex()}", file=sys.stderr)
            raise
        seconds = time.process_time() - start
        tried[kind] += 1
        if traced:
            largest = max(largest, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        elif seconds > slowest:
            slowest, slowest_file = seconds, data
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_memory)
    report = {
        "files": sum(tried.values()),
        "seed": options.seed,
        "decoded_with_a_made_up_checksum": decoded["sealed"],
        "with_the_checksum_as_it_came": tried["as is"],
        "decoded_of_these": decoded["as is"],
        "expected_of_these_at_most": round(tried["as is"] / 65_536, 1),
        "slowest_seconds": round(slowest, 4),
        "largest_bytes_traced": largest,
        "peak_memory_grown_bytes": grown,
    }
    print(json.dumps(report, indent=1))
    expected = tried["as is"] / 65_536
    assert decoded["as is"] <= expected + 5 * expected**0.5 + 1, "the checksum lets too much pass"
    assert largest <= MAX_BYTES and grown <= MAX_BYTES, "more than 64 MB"
    assert slowest <= MAX_SECONDS, f"more than 50 ms: {slowest_file.hex()}"
    write_whole(options.output, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
