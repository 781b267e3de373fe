"""The tables of `perco evaluate` that answer RQ1 to RQ5: their commands, full and short.

    EXPERIMENTS ──options──► perco evaluate … -o out/NAME.csv     hours: `make evidence`
                └─short()──► the same on two of scikit-image's photos, at one rate: minutes

scripts/measure.py runs them and scripts/figures.py draws them. One U-Net against one for each rate
needs weights that are not in this repository: train them with `perco train codec --rates RATE`,
then `perco evaluate kodak --weights FOLDER --rates RATE -o data/results/alone_RATE.csv`.
"""

from dataclasses import dataclass

SHRUNK = ("jpeg2000-shrunk", "webp-shrunk", "avif-shrunk", "jpegxl-shrunk")
WHOLE = ("jpeg", "jpeg2000", "webp", "avif", "jpegxl")
OURS = ("perco", "perco+steps=20", "perco-estimate", "autoencoder")
TEXTS = ("perco", *(f"perco+caption={kind}" for kind in ("machine", "other", "none")))
GUIDANCE = (1, 2, 3, 5, 7)
STEPS = (1, 2, 5, 10, 20)
SEEDS = (1, 2, 3, 4)  # besides perco's own, 0
SIZES = (256, 512, 1024, 2048)  # pixels of the long side
LOWEST, HIGHEST = "0.0019", "0.1250"

PHOTO = ("psnr", "ms_ssim", "lpips_alex", "lpips_vgg", "dists")
SETS = ("fid_256", "kid_256", "kid_512", "own_photo", "same_class")
FEW = ("psnr", "lpips_alex", "kid_256")


@dataclass(frozen=True)
class Experiment:
    """One table: photos, codecs and metrics; ``rates``: "" = all that the weights serve."""

    name: str
    dataset: str
    codecs: tuple[str, ...]
    metrics: tuple[str, ...] = FEW
    rates: str = ""
    more: str = ""  # other options
    minutes: float = 10  # of two cores, where it never ran here; the long ones as measured

    @property
    def options(self) -> str:
        """Options of its command, behind the output."""
        parts = [f"--codecs {','.join(self.codecs)}", f"--metrics {','.join(self.metrics)}"]
        parts += [f"--rates {self.rates}"] if self.rates else []
        return " ".join([*parts, *([self.more] if self.more else [])])

    def short(self) -> str:
        """A command for the same table in a minute, with whatever networks are here."""
        few = f"--codecs {','.join(self.codecs)} --metrics {','.join(self.metrics)}"
        more = " --controls" if "--controls" in self.more else ""
        side = self.more.partition("long:")[2]
        size = f"long:{max(128, int(side) // 4)}" if side else "256x256"
        output = f"out/short/{self.name}.csv"
        where = f"perco evaluate samples --photos 2 --resize {size} -o {output}"
        return f"{where} {few} --rates {LOWEST}{more}"


EXPERIMENTS = (
    # one photo at a time: what VGG sees of an original is kept for all that was made of it
    Experiment(
        "rates",
        "kodak",
        (*OURS, *WHOLE, *SHRUNK),
        (*PHOTO, *SETS, "pattern"),
        more="--controls --batch 1",
        minutes=107,
    ),
    Experiment(
        "rates_coco",
        "coco_eval",
        (*OURS, *SHRUNK),
        ("psnr", "lpips_alex", *SETS, "miou", "miou_masks"),
        more="--controls --batch 1",
        minutes=75,
    ),
    Experiment(
        "captions",
        "val",
        (*TEXTS, "perco+grid=none"),
        ("psnr", "lpips_alex", "fid", "kid", "own_photo", "same_class"),
        LOWEST,
        minutes=25,
    ),
    Experiment(
        "captions_coco",
        "coco_eval",
        (*TEXTS, "perco+grid=none"),
        ("psnr", "lpips_alex", "kid_256", "miou_masks"),
        LOWEST,
        minutes=17,
    ),
    Experiment(
        "guidance",
        "kodak",
        tuple(f"perco+steps=20+guidance={scale}" for scale in GUIDANCE),
        rates=LOWEST,
        minutes=16,
    ),
    Experiment(
        "steps",
        "kodak",
        ("perco", *(f"perco+steps={count}+sampler=paper" for count in STEPS)),
        rates=f"{LOWEST},{HIGHEST}",
        minutes=12,
    ),
    Experiment("seeds", "kodak", ("perco", *(f"perco+seed={seed}" for seed in SEEDS)), minutes=16),
    Experiment(
        "bottleneck",
        "kodak",
        ("perco", "perco+rounds=0", "perco+quantizer=off", "autoencoder"),
    ),
    *(
        Experiment(
            f"sizes_{side}",
            "large",
            ("perco", "avif-shrunk"),
            ("psnr", "lpips_alex"),
            LOWEST,
            f"--resize long:{side}",
        )
        for side in SIZES
    ),
)
BY_NAME = {one.name: one for one in EXPERIMENTS}


def command_of(table: str) -> str:
    """What makes a table, for whoever misses it."""
    if table.startswith("alone_"):
        rate = table.removeprefix("alone_")
        return f"perco evaluate kodak --weights FOLDER --rates {rate} -o data/results/{table}.csv"
    return f"python scripts/measure.py --only {table}"
