"""Train the index prior of each rate on grids of photos, and make it whole numbers.

    latents ──refine──► grids (h,w) ──► contexts (n,7), codes (n,) ──► PriorNetwork, floats
    PriorNetwork ──round to 1/256──► IndexPrior, 16-bit integers ──► index_prior.npz

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
from perco_lite.refinement import default_rounds, refine
from perco_lite.training.latents import LatentStore

LIMIT = 0x7FFF / (1 << WEIGHT_BITS)  # what 16 bits hold


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
        inside = self.bands[contexts[:, -1]]
        for i, table in enumerate(self.tables):
            inside = inside + table[contexts[:, i]]
        if more is not None:
            inside = inside + more
        inside = F.relu(inside)
        inside = inside + F.relu(self.hidden(inside))
        return self.out(inside)

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
    grids: Sequence[np.ndarray],
    codebook_size: int,
    steps: int = 6000,
    batch_size: int = 1024,
    width: int = 32,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.05,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[IndexPrior, float]:
    """Fit one prior to grids (h,w) of codes below K; returns it and its bits an index at the end.

    The same seed gives the same prior on the same machine. Raises ValueError without grids.
    """
    if not len(grids):
        raise ValueError("got no grids to learn from; give photos that are large enough")
    contexts = np.concatenate([grid_contexts(grid, codebook_size) for grid in grids])
    codes = np.concatenate([np.asarray(grid).reshape(-1) for grid in grids])
    inputs, targets = torch.from_numpy(contexts).to(device), torch.from_numpy(codes).to(device)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PriorNetwork(codebook_size, width).to(device)

    def draw() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(targets), (batch_size,), generator=generator).to(device)
        return network(inputs[chosen]), targets[chosen]

    spent = train_network(network, targets, draw, steps, learning_rate, weight_decay)
    return network.quantize(), spent


def train_network(
    network: PriorNetwork,
    codes: Tensor,
    draw: Callable[[], tuple[Tensor, Tensor]],
    steps: int,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.05,
) -> float:
    """Train in place on ``draw()``'s logits (n,K) and codes (n,); bits an index at the end.

    Starts from how often each of ``codes`` occurs: the network adds what the neighbours say.
    """
    counts = torch.bincount(codes, minlength=network.out.out_features).float() + 1
    with torch.no_grad():
        network.out.bias.copy_((counts / counts.sum()).log())
        network.out.weight.mul_(0.1)
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, max(steps, 2))
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
) -> tuple[list[np.ndarray], list[int]]:
    """Grids (h,w) int64 that ``codec`` would send for cached latents, refined as usual.

    Latents are read in this order, up to the one that makes it ``enough`` indices, each as it is
    and mirrored, which doubles the text to learn from. What is more than a multiple of the rate's
    stride is cut off; latents below one stride are left out. Returns the grids, and the number of
    the photo of each.
    """
    step = codec.rate(rate).stride // 8
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
        indices = refine(codec.conditioner, both, rate, default_rounds(rate))
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
