"""Vector quantization: replace each feature vector by the code that points the same way.

    features ──► project_in ──► unit vectors ──► nearest code ──► indices (B,h,w)    what is sent
    (B,D,h,w)    D -> d=32          │                 │
                     straight-through gradient ◄──────┴──► project_out ──► quantized (B,D,h,w)

Paper: PerCo, Sec. 3.2, with the settings of PerCo (SD): cosine codes, EMA, decay 0.8, no loss term.
Differs from the paper: nothing by default. `init="data"`, `init="kmeans"` and
`threshold_ema_dead_code` are additions that keep the small codebooks of short trainings in use.
A `price` makes it entropy-constrained: a code a little less near is taken if it costs fewer bits
(Chou, Lookabaugh & Gray, 1989).

Taught in notebook 03.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

VECTORS_AT_ONCE = 2**14  # bounds the (vectors, codes) table of similarities
# indices (B,h,w) so far, n places of the flattened grid -> what each code costs there, (B,n,K), in
# units of similarity
Price = Callable[[Tensor, Tensor], Tensor]


class VectorQuantizer(nn.Module):
    """Quantizer with unit-length codes, learned by moving averages and without any loss.

    `dim` is D, the channels of the features; `codebook_size` is K; `code_dim` is the length d of
    a code. `decay` is the share of the old average that one training step keeps. `init` is where
    the codes start: "uniform" (random directions; the paper), "data" (vectors of the first
    training batch) or "kmeans" (their cluster centres); the last two hold random directions until
    that batch. `threshold_ema_dead_code`: a code whose average count per step falls below it is
    replaced by a random vector of the batch; 0 is off (the paper). ValueError on other settings.

    There is no commitment loss to add: the paper trains without one, and PerCo (SD) found it
    unstable. The encoder learns from the decoder's loss through the straight-through gradient.

    Equal, step by step, to `VectorQuantize(dim, K, codebook_dim=d, use_cosine_sim=True,
    rotation_trick=False)` of vector-quantize-pytorch (a test holds them together).
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        code_dim: int = 32,
        decay: float = 0.8,
        init: str = "uniform",
        threshold_ema_dead_code: float = 0.0,
    ):
        super().__init__()
        if min(dim, codebook_size, code_dim) < 1:
            raise ValueError(
                f"dim, codebook_size, code_dim are {dim}, {codebook_size}, {code_dim}, expected at "
                f"least 1 each; take codebook_size from a RatePoint, dim from the hyper-encoder"
            )
        if init not in ("uniform", "data", "kmeans"):
            raise ValueError(f"init is {init!r}, expected uniform (the paper), data or kmeans")
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, expected 0 <= decay < 1; the paper's value is 0.8")
        if threshold_ema_dead_code < 0:
            raise ValueError(
                f"threshold_ema_dead_code is {threshold_ema_dead_code}, expected at least 0; 0 is "
                f"off, as in the paper"
            )
        self.dim = dim
        self.codebook_size = codebook_size
        self.decay = decay
        self.init = init
        self.threshold_ema_dead_code = threshold_ema_dead_code
        # While True the codebook waits: a training step made of several batches is one EMA step.
        self.hold = False
        self._held: list[tuple[Tensor, Tensor]] = []
        self.project_in = nn.Linear(dim, code_dim)
        self.project_out = nn.Linear(code_dim, dim)
        codebook = _unit(torch.rand(codebook_size, code_dim) * 2 - 1)
        self.codebook: Tensor
        self.register_buffer("codebook", codebook)
        # Moving averages over training steps: how many vectors chose a code, and their sum.
        self.register_buffer("cluster_size", torch.ones(codebook_size))
        self.register_buffer("vector_sum", codebook.clone())
        self.register_buffer("initialised", torch.tensor(init == "uniform"))

    def forward(self, features: Tensor, price: Price | None = None) -> tuple[Tensor, Tensor]:
        """Return `(quantized (B,D,h,w), indices (B,h,w) int64)` for features (B,D,h,w).

        In training mode the codebook then moves towards the features; what is returned still
        comes from the codebook before the move. `quantized` has the dtype of the weights.
        """
        with torch.autocast(features.device.type, enabled=False):
            vectors = self._vectors(features)
            if self.training and not self.initialised:
                self._initialise(vectors.detach().flatten(0, 2))
            indices = self._choose(vectors, price)
            codes = self.codebook.float()[indices]
            # Straight-through: the value is exactly `codes`, the gradient is that of `vectors`.
            quantized = self._project_out(codes + (vectors - vectors.detach()))
            if self.training:
                self._held.append((vectors.detach().flatten(0, 2), indices.flatten()))
                if not self.hold:
                    held, self._held = self._held, []
                    self._update(*map(torch.cat, zip(*held, strict=True)))
        return quantized, indices

    def encode(self, features: Tensor, price: Price | None = None) -> Tensor:
        """Index of the nearest code at each position: (B,D,h,w) -> (B,h,w) int64. Never trains.

        With a ``price``: of the code whose similarity, less its price there, is the largest.
        """
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            return self._choose(self._vectors(features), price)

    def decode(self, indices: Tensor) -> Tensor:
        """Look the codes up again: (B,h,w) integers -> quantized (B,D,h,w), as `forward` gave it.

        Raises ValueError if an index is outside the codebook.
        """
        if indices.ndim != 3 or indices.is_floating_point() or indices.is_complex():
            raise ValueError(
                f"indices are {indices.dtype} of shape {tuple(indices.shape)}, expected integers "
                f"(B, h, w); pass what encode returned, with a batch axis"
            )
        indices = indices.long()
        if indices.numel() and not 0 <= indices.min() <= indices.max() < self.codebook_size:
            raise ValueError(
                f"indices reach from {indices.min()} to {indices.max()}, expected 0 to "
                f"{self.codebook_size - 1}; use the quantizer of the rate that encoded them"
            )
        with torch.autocast(indices.device.type, enabled=False):
            return self._project_out(self.codebook.float()[indices])

    @torch.no_grad()
    def unquantized(self, features: Tensor) -> Tensor:
        """What ``decode`` would give if every vector had a code of its own: (B,D,h,w) -> same."""
        with torch.autocast(features.device.type, enabled=False):
            return self._project_out(self._vectors(features))

    def _apply(self, fn, recurse: bool = True):
        """Move or convert; where the rest becomes bfloat16, the codes become float16.

        Eight bits would blur what an index means, and with it the id of the weights.
        """
        codes = self.codebook
        super()._apply(fn, recurse)
        if self.codebook.dtype == torch.bfloat16 != codes.dtype:
            self.codebook = codes.to(self.codebook.device, torch.float16)
        return self

    def _vectors(self, features: Tensor) -> Tensor:
        """Features (B,D,h,w) -> unit vectors (B,h,w,d), float32."""
        if features.ndim != 4 or features.shape[1] != self.dim:
            raise ValueError(
                f"features have shape {tuple(features.shape)}, expected (B, {self.dim}, h, w); "
                f"set dim to the hyper-encoder's out_channels"
            )
        features = features.permute(0, 2, 3, 1).to(self.project_in.weight.dtype)
        return _unit(self.project_in(features).float())

    def _project_out(self, codes: Tensor) -> Tensor:
        """Codes (B,h,w,d) -> quantized (B,D,h,w)."""
        return self.project_out(codes.to(self.project_out.weight.dtype)).permute(0, 3, 1, 2)

    @torch.no_grad()
    def _choose(self, vectors: Tensor, price: Price | None) -> Tensor:
        """Unit vectors (B,h,w,d) -> indices (B,h,w): the largest dot product is the smallest angle.

        What a code costs depends on its neighbours, so with a ``price`` the nearest codes come
        first, and places that do not touch then choose anew together, in four turns.
        """
        codebook, shape = self.codebook.float(), vectors.shape[:-1]
        indices = _most_similar(vectors.flatten(0, -2), codebook).view(shape)
        if price is None:
            return indices
        turn = turns(shape[1], shape[2], 4).flatten().to(vectors.device)
        vectors = vectors.flatten(1, 2)
        for number in range(4):
            places = (turn == number).nonzero()[:, 0]
            for some in places.split(max(1, VECTORS_AT_ONCE // shape[0])):
                worth = vectors[:, some] @ codebook.T - price(indices, some)
                indices.view(shape[0], -1)[:, some] = worth.argmax(dim=-1)
        return indices

    @torch.no_grad()
    def _update(self, vectors: Tensor, indices: Tensor) -> None:
        """One EMA step with vectors (N,d) and the codes they chose (N,), summed over all ranks."""
        counts, sums = _statistics(vectors, indices, self.codebook_size)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.vector_sum.lerp_(sums, 1 - self.decay)
        # Division by the (Laplace-smoothed) count gives a mean; its length is then set to 1. The
        # smoothing matters only to a code unused for some 100 steps, which shrinks towards zero.
        total, epsilon = self.cluster_size.sum(), 1e-5
        smoothed = (self.cluster_size + epsilon) / (total + self.codebook_size * epsilon) * total
        self.codebook.copy_(_unit(self.vector_sum / smoothed[:, None]))
        if self.threshold_ema_dead_code > 0:
            self._revive(vectors)

    def _revive(self, vectors: Tensor) -> None:
        """Replace each code that is hardly used by a random vector of this batch (N,d)."""
        dead = self.cluster_size < self.threshold_ema_dead_code
        if not dead.any():
            return
        fresh = _broadcast(_sample(vectors, int(dead.sum())))
        # The count of a new codebook, so that a few steps may pass without a match, but so small
        # that the next match outweighs the old vector.
        count = max(1.0, 2 * self.threshold_ema_dead_code)
        self.codebook[dead] = fresh
        self.cluster_size[dead] = count
        self.vector_sum[dead] = fresh * count

    @torch.no_grad()
    def _initialise(self, vectors: Tensor) -> None:
        """Start the codes from the first training batch (N,d); the draw is rank 0's."""
        codebook = _broadcast(_sample(vectors, self.codebook_size))
        counts = torch.ones_like(self.cluster_size)
        if self.init == "kmeans":
            codebook, counts = _spherical_kmeans(vectors, codebook)
        self.codebook.copy_(codebook)
        self.cluster_size.copy_(counts.clamp(min=1))  # a centre nothing chose stays where it is
        self.vector_sum.copy_(self.codebook * self.cluster_size[:, None])
        self.initialised.fill_(True)


def perplexity(indices: Tensor, codebook_size: int) -> float:
    """Number of equally used codes with the same entropy as `indices`: from 1 to codebook_size.

    Far below the codebook size means a collapsed codebook: bits are paid for codes never sent.
    """
    counts = torch.bincount(indices.flatten(), minlength=codebook_size).double()
    return torch.distributions.Categorical(probs=counts / counts.sum()).entropy().exp().item()


def turns(h: int, w: int, count: int) -> Tensor:
    """Which of 2 or 4 turns each place of a grid (h,w) has, int64.

    The colours of a checkerboard, or these split once more by rows.
    """
    i, j = torch.arange(h)[:, None], torch.arange(w)
    checkerboard = (i + j) % 2
    return checkerboard if count == 2 else 2 * checkerboard + i % 2


def _unit(vectors: Tensor) -> Tensor:
    """Scale the last axis to length 1."""
    return F.normalize(vectors, dim=-1, eps=1e-6)


def _most_similar(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Vectors (N,d), codes (K,d) -> index of the largest dot product for each vector (N,)."""
    chunks = vectors.split(VECTORS_AT_ONCE)
    return torch.cat([(chunk @ codebook.T).argmax(dim=-1) for chunk in chunks])


def _statistics(vectors: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Count (K,) and sum (K,d) of the vectors that chose each code, over all ranks' batches."""
    with_one = F.pad(vectors, (0, 1), value=1.0)  # the extra column sums to the count
    sums = with_one.new_zeros(codebook_size, with_one.shape[1]).index_add_(0, indices, with_one)
    if _is_distributed():
        dist.all_reduce(sums)
    return sums[:, -1], sums[:, :-1]


def _sample(vectors: Tensor, count: int) -> Tensor:
    """Draw `count` unit vectors from (N,d); if N is less, with repeats moved slightly apart."""
    number = len(vectors)
    if number >= count:
        return vectors[torch.randperm(number, device=vectors.device)[:count]]
    drawn = vectors[torch.randint(0, number, (count,), device=vectors.device)]
    return _unit(drawn + 1e-3 * torch.randn_like(drawn))


def _spherical_kmeans(vectors: Tensor, centres: Tensor, steps: int = 10) -> tuple[Tensor, Tensor]:
    """Improve unit `centres` (K,d) on unit vectors (N,d); return them and their counts (K,)."""
    for _ in range(steps):
        counts, sums = _statistics(vectors, _most_similar(vectors, centres), len(centres))
        centres = torch.where(counts[:, None] > 0, _unit(sums), centres)
    return centres, counts


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _broadcast(tensor: Tensor) -> Tensor:
    """Rank 0's tensor on every rank. All ranks draw, so that their random states stay in step."""
    tensor = tensor.contiguous()
    if _is_distributed():
        dist.broadcast(tensor, src=0)
    return tensor
