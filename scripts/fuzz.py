"""Damage `.perco` files in every way and see that nothing but a BitstreamError comes of it.

    python scripts/fuzz.py [--files 1000000] [--jobs 2] [--resume] [--seed 0] [--limit 0.05] [-o F]

Half of the damaged files get a checksum that fits, so that what lies behind it is reached too. For
the other half, files that still decode are counted: a checksum of 16 bits lets one in 65,536 pass.

A file may take 50 ms of a processor, and 80 µs more for each index that its header says is coded
with a prior: a whole file of 6,144 such indices needs longer than 50 ms itself. What takes longer
is timed twice more, since machines have other things to do. The memory of the first file of each
block of 500 is traced, and the whole process's peak is looked at.

Each block has its own seed, so that the files are the same for any --jobs; the report is written
after each. --resume goes on behind the blocks of a report. Ends with 1 and the file's bytes if
anything else happens.
"""

import argparse
import functools
import itertools
import json
import multiprocessing
import random
import resource
import time
import tracemalloc
from pathlib import Path

import numpy as np

from perco_lite.coding import index_prior
from perco_lite.coding.bitstream import MAX_PRIOR_INDICES, BitstreamError, PercoFile, pack, unpack
from perco_lite.coding.entropy_coding import MAX_CAPTION_BYTES, caption_table_id
from perco_lite.coding.file_header import checksum, mixed_id, read_header
from perco_lite.coding.index_prior import prior_table_id
from perco_lite.coding.range_coder import RangeDecoder
from perco_lite.files import write_whole
from perco_lite.rates import RATES, get_rate

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "coding" / "golden"
BLOCK = 500
MAX_SECONDS, MAX_SECONDS_AN_INDEX, MAX_BYTES = 0.050, 80e-6, 64 << 20
CAPTIONS = ("", "a red barn beside a pond", "Kaffee ☕ 42 °C", "na " * 90, "§" * 300, "zyx " * 60)
KINDS = ("no header", "version 1", "version 2", "with the caption table", "with a prior")
SUMS = ("files", "decoded_with_a_made_up_checksum", "with_the_checksum_as_it_came")
SUMS += ("decoded_of_these", "files_traced")
MAXIMA = ("slowest_of_its_limit", "largest_bytes_traced", "peak_memory_grown_bytes")


def seeds() -> dict[bytes, float]:
    """Whole files to damage, and how often: golden ones, and version 2's of every rate and size.

    Where a prior is bundled, also files of its rates that it codes, drawn from what it expects;
    large ones take long, so they are rare.
    """
    files = [path.read_bytes() for path in sorted(GOLDEN.glob("*.perco"))]
    numbers = np.random.default_rng(0)
    for i, rate in enumerate(RATES):
        for j, (width, height) in enumerate([(768, 512), (97, 61), (1, 1)]):
            indices = numbers.integers(0, rate.codebook_size, rate.grid_shape(height, width))
            caption = CAPTIONS[(i + j) % len(CAPTIONS)]
            files.append(pack(PercoFile(rate, width, height, caption, indices, 0x79F1)))
    pool = dict.fromkeys(files, 1.0)
    found = index_prior.bundled()
    for name, prior in found.priors.items() if found else ():
        rate = get_rate(name)
        for width, height in ((768, 512), (300, 200), (97, 61), (64, 64)):
            shape = rate.grid_shape(height, width)
            drawn = prior.decode(RangeDecoder(numbers.bytes(2 * shape[0] * shape[1])), shape)
            data = pack(PercoFile(rate, width, height, CAPTIONS[1], drawn, found.model_id))
            pool[data] = min(1, 50 / drawn.size)
    return pool


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


def kind_and_limit(data: bytes, seconds: float = MAX_SECONDS) -> tuple[str, float]:
    """What a file says it is, and how many seconds it may take."""
    try:
        header = read_header(data, caption_table_id(), prior_table_id())
    except BitstreamError:
        return KINDS[0], seconds
    if not header.prior_coded:
        return KINDS[3 if header.table_coded else header.version], seconds
    height, width = header.rate.grid_shape(header.height, header.width)
    coded = height * width if height * width <= MAX_PRIOR_INDICES else 0  # more are refused
    return KINDS[4], seconds + MAX_SECONDS_AN_INDEX * coded


def seconds_of(data: bytes) -> tuple[bool, float]:
    """Whether a file decodes, and how long that keeps a processor busy."""
    start = time.process_time()
    decodes = check(data)
    return decodes, time.process_time() - start


@functools.cache
def ready() -> tuple[dict[bytes, float], list[float], int]:
    """What a process makes once: whole files, their weights summed up, and its memory then."""
    pool = seeds()
    assert all(map(check, pool)), "a whole file did not decode"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pool, list(itertools.accumulate(pool.values())), memory


def run_block(seed: int, max_seconds: float, number: int) -> dict:
    """Counts of one block of files; "problem" is None, or what went wrong with which bytes."""
    whole, weights, memory = ready()
    pool, chance = list(whole), random.Random(f"{seed}/{number}")
    kinds = {kind: {"files": 0, "decoded": 0, "slowest_seconds": 0.0} for kind in KINDS}
    counts = {"blocks": 1, **dict.fromkeys(SUMS, 0), "by_kind": kinds}
    counts |= dict.fromkeys(MAXIMA, 0)
    for position in range(BLOCK):
        (original,) = chance.choices(pool, cum_weights=weights)
        data, seal = damage(original, pool, chance), chance.random() < 0.5
        data = sealed(data[:-2]) if seal else data
        if data in whole:
            continue
        kind, limit = kind_and_limit(data, max_seconds)
        try:
            if not counts["files_traced"]:
                tracemalloc.start()
                decodes, seconds = check(data), 0.0  # tracing takes its time
                largest = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                counts["files_traced"] += 1
                counts["largest_bytes_traced"] = max(counts["largest_bytes_traced"], largest)
                assert largest <= MAX_BYTES, "more than 64 MB"
            else:
                decodes, seconds = seconds_of(data)
                if seconds > limit:
                    seconds = min(seconds, seconds_of(data)[1], seconds_of(data)[1])
                assert seconds <= limit, f"{seconds:.3f} s, more than {limit:.3f}"
        except Exception as error:
            problem = f"file {position} of block {number}, seed {seed}: {error!r}: {data.hex()}"
            return counts | {"problem": problem}
        counts["files"] += 1
        kinds[kind]["files"] += 1
        kinds[kind]["decoded"] += decodes
        counts["with_the_checksum_as_it_came"] += not seal
        counts["decoded_with_a_made_up_checksum" if seal else "decoded_of_these"] += decodes
        kinds[kind]["slowest_seconds"] = max(kinds[kind]["slowest_seconds"], seconds)
        counts["slowest_of_its_limit"] = max(counts["slowest_of_its_limit"], seconds / limit)
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts["peak_memory_grown_bytes"] = 1024 * (now - memory)
    return counts | {"problem": None}


def merged(one: dict, other: dict) -> dict:
    """Counts of two parts of a run together: sums, but maxima of what is slowest or largest."""
    out = {}
    for name, value in one.items():
        if isinstance(value, dict):
            out[name] = merged(value, other[name])
        else:
            both = value, other[name]
            largest = name in (*MAXIMA, "slowest_seconds")
            out[name] = round(max(both), 6) if largest else sum(both)
    return out


def describe(seed: int, max_seconds: float, counts: dict) -> dict:
    """The report: what was run, with which tables, and its counts."""
    of_these = counts["with_the_checksum_as_it_came"]
    return {
        "seed": seed,
        "files_in_a_block": BLOCK,
        "caption_table": f"{caption_table_id():#06x}",
        "index_prior": f"{prior_table_id():#06x}" if index_prior.bundled() else None,
        "limit_seconds": max_seconds,
        "limit_seconds_an_index_with_a_prior": MAX_SECONDS_AN_INDEX,
        "expected_of_these_at_most": round(of_these / 65_536, 1),
        "counts": counts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000, help=f"in blocks of {BLOCK}")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=MAX_SECONDS, help="seconds a file")
    parser.add_argument("--resume", action="store_true", help="go on behind the report's blocks")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "data/results/fuzz.json")
    options = parser.parse_args()
    counts, blocks = None, -(-options.files // BLOCK)
    if options.resume and options.output.exists():
        report = json.loads(options.output.read_text(encoding="utf-8"))
        counts = report.get("counts")
        if counts is None or report != describe(options.seed, options.limit, counts):
            raise SystemExit(f"{options.output} is of another run: without --resume, start afresh")
    left = range(counts["blocks"] if counts else 0, blocks)
    if not left:
        raise SystemExit(f"{options.output} has all of {options.files} files; ask for more")
    run = functools.partial(run_block, options.seed, options.limit)
    # fresh processes: what has computed with several threads cannot be forked
    pool = multiprocessing.get_context("spawn").Pool(options.jobs) if options.jobs > 1 else None
    for block in pool.imap(run, left) if pool else map(run, left):  # in order: a resumable run
        if problem := block.pop("problem"):
            raise SystemExit(problem)
        counts = merged(counts, block) if counts else block
        report = describe(options.seed, options.limit, counts)
        write_whole(options.output, (json.dumps(report, indent=1) + "\n").encode())
    print(json.dumps(report, indent=1))
    expected = counts["with_the_checksum_as_it_came"] / 65_536
    most = expected + 5 * expected**0.5 + 1
    assert counts["decoded_of_these"] <= most, "the checksum lets too much pass"
    assert counts["peak_memory_grown_bytes"] <= MAX_BYTES, "more than 64 MB"


if __name__ == "__main__":
    main()
