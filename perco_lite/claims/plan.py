"""What is still to be made for some claims, what cannot be made here, and how long it will take.

    claims, their measures ──why_not──► {id: reason}: told before any hour is spent
                           └─plan─────► Job …: a photo, or a short training, and what to make of it

What two claims need is made once. A job is what one process does without asking anybody.

Paper: nothing of this.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from perco_lite.captioning import Captioner
from perco_lite.claims import trained
from perco_lite.claims.dated import DatedClaim, missing_metrics
from perco_lite.claims.effects import Measure, Want
from perco_lite.claims.makers import RIVALS
from perco_lite.claims.photos import SETS, ClaimPhoto, missing_photos
from perco_lite.claims.store import Store
from perco_lite.codec import PercoCodec
from perco_lite.evaluation.codecs import shrunk
from perco_lite.evaluation.codecs.ours import Decoding, Estimate, PercoFiles
from perco_lite.evaluation.photos import known_sentences
from perco_lite.metrics import Unavailable
from perco_lite.perceptual import Lpips
from perco_lite.training.shards import find_training_data

Photos = Mapping[str, list[ClaimPhoto]]  # by folder
Task = tuple[str, str, tuple[str, ...]]  # what to make, rate, figures and features to store of it

# the metric of a list that stands for what is stored
_METRICS = {"inception": "kid_256", "labels": "miou_masks", "lpips_alex": "lpips_alex"}
# Seconds that one core takes for what is made of a Kodak photo, and for looking at it, with a codec
# that paints in one step (AMD EPYC). Other photos, codecs and machines differ, by about one factor.
SECONDS = {"original": 0.0, "file": 0.7, "the paper's account": 0.1, "captions": 0.02}
SECONDS |= dict.fromkeys(RIVALS, 0.4)  # at the lowest rate; some seconds at the highest
SECONDS |= {"perco-estimate": 0.6, "loop of 5": 1.4, "loop of 20": 2.8}
SECONDS |= {"loop of 20, guidance 3": 4.5}
PAINTED, LOSS, TRAINING_STEP = 1.5, 0.4, 1.2
LOOKED = {"inception": 1.1, "labels": 0.3, "lpips_alex": 0.15, "psnr": 0.02}


@dataclass(frozen=True)
class Job:
    """Photos (folder, number) with what to make of each, by the codec or a short training of it."""

    photos: tuple[tuple[str, int, tuple[Task, ...]], ...]
    seconds: float
    training: tuple[str, int, str] | None = None  # kind, seed, rate


def why_not(
    claims: Iterable[DatedClaim],
    measures: Mapping[str, Measure],
    photos: Photos,
    codec: PercoCodec,
    limit: int = 0,
) -> dict[str, str]:
    """Claims that cannot be measured on this machine, with these weights, and why: {id: reason}."""
    claims = list(claims)
    wants = {claim.id: measures[claim.id].everything for claim in claims}
    names = {_METRICS[w.figure] for each in wants.values() for w in each if w.figure in _METRICS}
    missing = missing_metrics([replace(claims[0], metric=name) for name in names])
    reasons, asked = {}, {}
    for claim in claims:
        said = [missing_photos(claim.photos, photos, limit)]
        for want in wants[claim.id]:
            said.append(missing.get(_METRICS.get(want.figure, ""), ""))
            if want.rate and want.rate not in codec.rates:
                said.append(f"these weights do not serve {want.rate}")
            kind = want.made.rpartition(", seed ")[0] or want.made
            if kind not in asked:
                asked[kind] = _what_is_missing(kind, codec)
            said.append(asked[kind])
        if found := list(dict.fromkeys(filter(None, said))):
            reasons[claim.id] = "; ".join(found)
    return reasons


def _what_is_missing(made: str, codec: PercoCodec) -> str:
    """Why something cannot be made here, or ""."""
    checks: dict[str, Callable[[], object]] = {
        "perco-estimate": lambda: Estimate(PercoFiles(codec), codec.rates, Decoding()),
        "the paper's account": Captioner.from_pretrained,
        "captions": known_sentences,
    }
    checks |= {name: lambda name=name: shrunk.check_available(name) for name in RIVALS}
    checks |= dict.fromkeys(trained.KINDS, lambda: find_training_data(None))
    checks[trained.LPIPS] = lambda: (find_training_data(None), Lpips("squeeze"))
    try:
        checks.get(made, str)()
    except (Unavailable, OSError, ValueError) as error:
        return str(error)
    return ""


def plan(
    wants: Iterable[Want], photos: Photos, store: Store, how: trained.ShortTraining
) -> list[Job]:
    """The jobs that make what the store lacks of these wants: photo by photo, then trainings."""
    asked: dict[tuple[str, str, str], dict[str, None]] = {}
    for want in wants:
        for folder in SETS[want.photos]:
            asked.setdefault((folder, want.made, want.rate), {})[want.figure] = None
    jobs: dict[tuple, list[tuple[str, int, Task]]] = {}
    for (folder, made, rate), names in asked.items():
        for number, photo in enumerate(photos[folder]):
            lacks = store.lacks((photo.name, made, rate), names)
            kind, is_training, seed = made.rpartition(", seed ")
            training = (kind, int(seed), rate) if is_training else None
            owner = training or (folder, number)
            if lacks:
                jobs.setdefault(owner, []).append((folder, number, (made, rate, lacks)))
    return sorted((_job(owner, tasks, how) for owner, tasks in jobs.items()), key=_is_training)


def _is_training(job: Job) -> bool:
    return job.training is not None


def _job(owner: tuple, tasks: list[tuple[str, int, Task]], how: trained.ShortTraining) -> Job:
    training = owner if len(owner) == 3 else None
    photos: dict[tuple[str, int], list[Task]] = {}
    for folder, number, task in tasks:
        photos.setdefault((folder, number), []).append(task)
    seconds = sum(seconds_of(task) for *_, task in tasks)
    seconds += TRAINING_STEP * how.steps if training else 0
    listed = tuple((*photo, tuple(several)) for photo, several in photos.items())
    return Job(listed, seconds, training)


def seconds_of(task: Task) -> float:
    """About how long one core works on it."""
    made, _, names = task
    loss = LOSS if "v_loss" in names else PAINTED
    return SECONDS.get(made, loss) + sum(LOOKED.get(name, 0.0) for name in names)
