"""One codec, many threads: what a call paints does not depend on the calls beside it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from PIL import Image

from perco_lite import PercoCodec

STEPS, SEEDS, THREADS = (1, 2, 4), (0, 1), 4


@pytest.fixture(scope="module")
def codecs(tiny_codec):
    """The same networks under three samplers."""
    made = []
    for kind in (DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler):
        scheduler = kind.from_config(tiny_codec.scheduler.config)
        made.append(PercoCodec(**{**tiny_codec.components, "scheduler": scheduler}))
    return made


def test_threads_steps_and_samplers_mixed(codecs):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
    files = [codecs[0].compress(image, text, "0.0313") for text in ("", "a red barn")]
    jobs = [(c, f, n, s) for n in STEPS for s in SEEDS for f in files for c in codecs]

    def paint(job) -> np.ndarray:
        codec, data, steps, seed = job
        guidance = 1 + seed  # one pass or two
        return np.asarray(codec.decompress(data, steps, guidance, seed=seed)).astype(int)

    alone = [paint(job) for job in jobs]
    before = [dict(vars(codec.scheduler)) for codec in codecs]
    with ThreadPoolExecutor(THREADS) as threads:
        together = list(threads.map(paint, jobs))
    assert len({picture.tobytes() for picture in alone}) > len(jobs) // 2  # they do differ
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() == 0
    for codec, scheduler in zip(codecs, before, strict=True):  # nothing of the codec has changed
        assert vars(codec.scheduler).keys() == scheduler.keys()
        assert codec.scheduler.timesteps is scheduler["timesteps"]


def test_threads_compress_as_one_does(tiny_codec):
    rng = np.random.default_rng(1)
    photos = [Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)) for _ in range(4)]
    jobs = [(photo, rate) for photo in photos for rate in tiny_codec.rates]
    alone = [tiny_codec.compress(photo, "a barn", rate) for photo, rate in jobs]
    with ThreadPoolExecutor(THREADS) as threads:
        made = list(threads.map(lambda job: tiny_codec.compress(job[0], "a barn", job[1]), jobs))
    assert made == alone
