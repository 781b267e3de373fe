"""The steps of `make evidence`: which commands make what data/results/ keeps, of which photos.

STEPS: everything, hours; SHORT: the same chain on two samples, minutes ──► scripts/measure.py
"""

from dataclasses import dataclass

from experiments import EXPERIMENTS


@dataclass(frozen=True)
class Step:
    """Commands in order, the folders of photos they need, and what must be there afterwards.

    ``stale``: files and folders to take away before the step starts anew; ``minutes``: about how
    long it takes two cores, where it never ran here.
    """

    name: str
    commands: tuple[str, ...]
    photos: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    minutes: float = 5


def evaluation(name: str, dataset: str, options: str, minutes: float = 5) -> Step:
    """A table of `perco evaluate`, kept in data/results/ with its command."""
    table, photos = f"out/{name}.csv", () if dataset == "samples" else (dataset,)
    run = f"perco evaluate {dataset} -o {table} {options}"
    makes = table, f"data/results/{name}.csv", f"data/results/{name}.json"
    stale = table, f"out/{name}.json", f"out/{name}_pictures"
    commands = run, f"python scripts/pages.py evaluate {table}"
    return Step(name, commands, photos, makes, stale, minutes)


def script(name: str, makes: str, photos: tuple[str, ...], then: str = "") -> Step:
    """A script of scripts/ that writes its table whole or not at all; ``then``: its page."""
    commands = [f"python scripts/{name}.py", f"python scripts/pages.py {then}"][: 1 + bool(then)]
    return Step(name, tuple(commands), photos, (f"data/results/{makes}",))


STEPS = (
    Step(
        "bench",
        ("perco bench -o out/bench.json", "python scripts/pages.py bench out/bench.json"),
        ("kodak", "coco_eval", "val"),
        ("out/bench.json", "data/results/bench.json"),
    ),
    evaluation(
        "controls",
        "coco_eval",
        "--codecs perco --metrics lpips_alex,fid_256,kid_256,same_class --rates 0.0019 --controls",
    ),
    evaluation("samples", "samples", "--metrics psnr,ms_ssim,lpips_alex"),
    *(
        evaluation(one.name, one.dataset, f"{one.options} --strict", one.minutes)
        for one in EXPERIMENTS
    ),
    Step("figures", ("python scripts/figures.py",), (), ("docs/figures/bits.png",)),
    Step(
        "claims",
        ("perco claims -o out/claims --processes 2", "python scripts/pages.py verdicts out/claims"),
        ("kodak", "coco_eval", "val", "train", "captions", "weights"),
        ("out/claims/claims.json", "data/results/dated/claims.json"),
        ("out/claims",),
        minutes=120,
    ),
    script("caption_coders", "caption_coders.csv", ("captions",)),
    script("kodak_sizes", "kodak_sizes.csv", ("kodak",), then="sizes"),
    script("caption_in_prior", "index_prior.csv", ("kodak", "coco_eval", "train")),
    Step(
        "fuzz",
        ("python scripts/fuzz.py --jobs 2 --resume",),
        makes=("data/results/fuzz.json",),
        stale=("data/results/fuzz.json",),
    ),
    Step("strip", ("python scripts/make_strip.py",), (), ("docs/strip.png",)),
)


SHORT = (
    *(
        Step(
            one.name,
            (one.short(),),
            makes=(f"out/short/{one.name}.csv",),
            stale=(f"out/short/{one.name}*",),
        )
        for one in EXPERIMENTS
    ),
    Step(
        "figures",
        ("python scripts/figures.py --tables out/short -o out/short/figures",),
        makes=("out/short/figures/bits.png",),
    ),
)
