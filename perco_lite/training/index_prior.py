"""`perco train prior`: the index prior of each rate, learned on grids of photos, in whole numbers.

    latents ──refine──► grids (h,w) ──► contexts (n,7), codes (n,) ──► PriorNetwork, floats
       └── refined again: codes chosen at the price that this prior asks ◄──┘
    PriorNetwork ──round to 1/256──► IndexPrior, 16-bit integers ──► index_prior.npz
    one photo in 20 is held out ──► what frequencies alone save, and what neighbours add

Paper: none; PerCo trains no entropy model.
Differs from the paper: after the codec is trained, so that the codes are what they are; a file
coded with a prior needs that prior, which is named by the weights it belongs to and by its content.
"""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perco_lite.codec import PercoCodec
from perco_lite.coding.index_prior import BANDS, NEIGHBOURS, WEIGHT_BITS, IndexPrior, grid_contexts
from perco_lite.files import write_whole
from perco_lite.loading import load_codec
from perco_lite.refinement import bit_price, prior_logits, refine
from perco_lite.training.latents import LatentStore, cache_latents
from perco_lite.training.photos import PhotoStore
from perco_lite.training.settings import PriorSettings
from perco_lite.training.shards import find_training_data

LIMIT = 0x7FFF / (1 << WEIGHT_BITS)  # what 16 bits hold
HELD_OUT = 20  # one photo in so many
CHECKED = 200  # held-out grids that are coded to see what they cost
PASSES = 2  # a prior of codes that were chosen freely, then one of codes chosen at its price
MAX_INDICES = 500_000  # to learn from, at a rate; twice as many save half a percent more


class PriorNetwork(nn.Module):
    """The prior with floats; ``quantize`` makes the one that codes. Logits are in nats."""

    def __init__(self, codebook_size: int, width: int = 32):
        super().__init__()
        self.tables = nn.Parameter(torch.randn(len(NEIGHBOURS), codebook_size + 1, width) * 0.2)
        self.bands = nn.Parameter(torch.zeros(BANDS, width))
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, codebook_size)

    def forward(self, contexts: Tensor, more: Tensor | None = None) -> Tensor:
        """Contexts (n,7) of ``grid_contexts`` -> logits (n,K); ``more`` (n,D) is added inside."""
        hidden, out = self.hidden, self.out
        weights = hidden.weight.T, hidden.bias, out.weight.T, out.bias
        return prior_logits(contexts, self.tables, self.bands, *weights, more)

    def quantize(self) -> IndexPrior:
        """The same in whole numbers, logits in log2; weights beyond 16 bits are cut."""

        def whole(weights: Tensor, unit: float = 1.0) -> np.ndarray:
            scaled = (weights.detach().cpu().double() * unit).clamp(-LIMIT, LIMIT)
            return (scaled * (1 << WEIGHT_BITS)).round().to(torch.int64).numpy()

        in_log2 = 1 / math.log(2)
        return IndexPrior(
            tables=whole(self.tables),
            bands=whole(self.bands),
            hidden=whole(self.hidden.weight.T),
            hidden_bias=whole(self.hidden.bias),
            out=whole(self.out.weight.T, in_log2),
            out_bias=whole(self.out.bias, in_log2),
        )


def fit_prior(
    grids: Sequence[np.ndarray], codebook_size: int, device: str = "cpu", **options
) -> tuple[IndexPrior, float]:
    """Fit one prior to grids (h,w) of codes below K; returns it and its bits an index at the end.

    ``options`` are those of ``PriorSettings``. The same seed gives the same prior on the same
    machine. Raises ValueError without grids.
    """
    settings = PriorSettings(**options)
    if not len(grids):
        raise ValueError("got no grids to learn from; give photos that are large enough")
    contexts = np.concatenate([grid_contexts(grid, codebook_size) for grid in grids])
    codes = np.concatenate([np.asarray(grid).reshape(-1) for grid in grids])
    inputs, targets = torch.from_numpy(contexts).to(device), torch.from_numpy(codes).to(device)
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = PriorNetwork(codebook_size, settings.width).to(device)

    def draw() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(targets), (settings.batch_size,), generator=generator).to(device)
        return network(inputs[chosen]), targets[chosen]

    spent = train_network(network, targets, draw, settings.steps, settings)
    return network.quantize(), spent


def train_network(
    network: PriorNetwork,
    codes: Tensor,
    draw: Callable[[], tuple[Tensor, Tensor]],
    steps: int,
    settings: PriorSettings | None = None,
) -> float:
    """Train in place on ``draw()``'s logits (n,K) and codes (n,); bits an index at the end.

    Starts from how often each of ``codes`` occurs: the network adds what the neighbours say.
    """
    settings = settings or PriorSettings()
    rate = settings.learning_rate
    counts = torch.bincount(codes, minlength=network.out.out_features).float() + 1
    with torch.no_grad():
        network.out.bias.copy_((counts / counts.sum()).log())
        network.out.weight.mul_(0.1)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, max(steps, 2))
    recent: list[float] = []
    for _ in range(steps):
        loss = F.cross_entropy(*draw())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recent = [*recent[-49:], loss.item() / math.log(2)]
    return sum(recent) / max(len(recent), 1)


def prior_bits(prior: IndexPrior, grids: Sequence[np.ndarray]) -> float:
    """Mean bits an index that a prior spends on grids; for people, so in floats."""
    bits = [math.log2(total / size) for grid in grids for _, size, total in prior.walk(grid)]
    return sum(bits) / len(bits)


def order_0_bits(grids: Sequence[np.ndarray], others: Sequence[np.ndarray], size: int) -> float:
    """Mean bits an index of ``others`` with the frequencies of ``grids`` alone, no neighbours."""
    counts = np.bincount(np.concatenate([g.reshape(-1) for g in grids]), minlength=size) + 1
    codes = np.concatenate([g.reshape(-1) for g in others])
    return float(np.log2(counts.sum() / counts[codes]).mean())


@torch.no_grad()
def collect_grids(
    codec: PercoCodec,
    latents: LatentStore,
    order: Sequence[int],
    rate: str,
    enough: float = math.inf,
    prior: IndexPrior | None = None,
) -> tuple[list[np.ndarray], list[int]]:
    """Grids (h,w) int64 that ``codec`` would send for cached latents with this ``prior``.

    Latents are read in this order, up to the one that makes it ``enough`` indices, each as it is
    and mirrored, which doubles the text to learn from. What is more than a multiple of the rate's
    stride is cut off; latents below one stride are left out. Returns the grids, and the number of
    the photo of each.
    """
    step, price = codec.rate(rate).stride // 8, bit_price(prior, codec.rate(rate))
    grids: list[np.ndarray] = []
    photos: list[int] = []
    collected = 0
    for number in order:
        if collected > enough:
            break
        one = latents.latents[number]
        height, width = (side // step * step for side in one.shape[1:])
        if not height or not width:
            continue
        whole = one[None, :, :height, :width].to(codec.device, codec.autoencoder.dtype)
        both = torch.cat([whole, whole.flip(-1)])
        indices = refine(codec.conditioner, both, rate, price=price)
        grids += list(indices.cpu().numpy().astype(np.int64))
        photos += [latents.photos[number]] * len(both)
        collected += indices.numel()
    return grids, photos


def write_priors(priors: dict[str, IndexPrior], model_id: int, path: Path) -> int:
    """Write priors by rate name for the weights ``model_id``; returns the file's bytes."""
    arrays = {"model_id": np.array([model_id], dtype="<u4")}
    for name, prior in sorted(priors.items()):
        arrays |= prior.arrays(f"{name}/")
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    write_whole(path, stream.getvalue())
    return len(stream.getvalue())


def train_prior_recipe(
    data: str | Path | None, output: Path, weights: str | None = None, **options
) -> dict:
    """Train a prior for every rate of a codec and write them; returns bits an index by rate.

    ``options`` are those of ``PriorSettings``. ``large`` of the photos are seen a second time,
    enlarged: at the lowest rate, an index of a small photo is far from its neighbours. The file
    goes into the package as ``perco_lite/coding/index_prior.npz``. Raises ``FileNotFoundError`` or
    ``ValueError`` without photos or weights.
    """
    settings = PriorSettings(**options)
    store = PhotoStore(find_training_data(data))
    if len(store) < 2:
        raise ValueError(f"got {len(store)} photos, expected thousands; one in 20 is held out")
    codec, output = load_codec(weights, settings.device), Path(output)
    cached = output.with_name("latents.safetensors"), settings.photos, settings.large, settings.seed
    latents = cache_latents(codec.autoencoder, store, *cached)
    held = set(sorted(set(latents.photos))[::HELD_OUT])
    priors, report = {}, {}
    for rate in codec.rates:
        size = codec.rate(rate).codebook_size
        order = reading_order(latents, codec.rate(rate).stride, settings.seed)
        options |= {"device": str(codec.device)}
        prior = None
        for _ in range(PASSES):
            found = collect_grids(codec, latents, order, rate, MAX_INDICES, prior)
            pairs = list(zip(*found, strict=True))
            grids = [grid for grid, photo in pairs if photo not in held]
            prior, _ = fit_prior(grids, size, **options)
        priors[rate], unseen = prior, [grid for grid, photo in pairs if photo in held][:CHECKED]
        uniform, spent = codec.rate(rate).bits_per_index, prior_bits(priors[rate], unseen)
        report[rate] = {
            "grids": len(grids),
            "uniform_bits": uniform,
            "order_0_bits": round(order_0_bits(grids, unseen, size), 3),
            "prior_bits": round(spent, 3),
            "saved": round(1 - spent / uniform, 4),
        }
        print(f"{rate}: {report[rate]}", flush=True)
    return {
        "priors": str(output),
        "model_id": f"{codec.model_id:#06x}",
        "bytes": write_priors(priors, codec.model_id, output),
        "rates": report,
    }


def reading_order(latents: LatentStore, stride: int, seed: int) -> list[int]:
    """Numbers of the latents in random order; where indices are few, the largest first.

    At the lowest rates most indices of a small photo lie at its edge, few of a large one's do.
    """
    order = np.random.default_rng(seed).permutation(len(latents.latents)).tolist()
    if stride >= 32:
        order.sort(key=lambda i: -latents.latents[i].shape[1])
    return order
