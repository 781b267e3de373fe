"""Is it still that photo, and the same thing? Both as a classifier of ImageNet sees it.

    photo ──EfficientNet-lite0──► features (1280,), scores of 1,000 classes
    own_photo    share of pictures whose nearest original, of all, is their own
    same_class   share of pictures whose likeliest class is that of their original

Blur, blocks and another photo's texture move a distance between features about as much as another
photo does; these two ask what is left of the photo itself. Nearest by the cosine of the features.

Paper: nothing of this; its CLIP score and mIoU ask for the caption's and the segmenter's classes.
Differs from the paper: EfficientNet-lite0 (Tan and Le, 2019), of which `perco download metrics`
fetches the published weights; photos are squashed to 224×224 whole.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from perco_lite.captioning.photo_features import CHANNELS, PhotoFeatures, fold_batch_norm, squash
from perco_lite.evaluation.metrics.intervals import Score, bootstrap_interval
from perco_lite.metrics import Unavailable, first_line
from perco_lite.perceptual import DIGESTS, load_network

NETWORK = "efficientnet_lite0"
PROTOCOL = f"EfficientNet-lite0, ImageNet (digest {DIGESTS[NETWORK][:12]}), squashed to 224×224"

Seeing = Callable[[Image.Image], Tensor]


def load_recogniser() -> Seeing:
    """A function of a PIL RGB photo: its features and its class scores, (2280,) float32.

    ``Unavailable`` where the network is not here, or is another than the published one.
    """
    try:
        published = load_network(NETWORK)
    except (ValueError, OSError) as error:
        raise Unavailable(f"own_photo and same_class: {first_line(error)}") from error
    if published is None:
        raise Unavailable(
            f"own_photo and same_class: no {NETWORK} here; `perco download metrics` fetches it"
        )
    return recogniser(published)


def recogniser(published: dict[str, Tensor]) -> Seeing:
    """The same, of weights by their published names."""
    eyes = PhotoFeatures()
    eyes.load_state_dict(fold_batch_norm(published))
    weight, bias = published["_fc.weight"], published["_fc.bias"]

    @torch.inference_mode()
    def see(photo: Image.Image) -> Tensor:
        features = eyes(squash([photo]))[0].mean(0)
        return torch.cat([features, weight @ features + bias])

    return see


def own_photo(originals: Iterator[Tensor], pictures: Iterator[Tensor]) -> Score:
    """Share of pictures (2280,) nearest to their own original; 1 / photos is chance."""
    a, b = (normalize(_stack(some)[:, :CHANNELS], dim=1) for some in (originals, pictures))
    if len(a) < 2:
        return Score(None, f"own_photo needs 2 photos to choose from, got {len(a)}")
    hits = (b @ a.T).argmax(1) == torch.arange(len(a))
    return _share(hits, f"nearest of {len(a)} originals by cosine, chance {1 / len(a):.3f}")


def same_class(originals: Iterator[Tensor], pictures: Iterator[Tensor]) -> Score:
    """Share of pictures (2280,) whose likeliest class is their original's."""
    a, b = (_stack(some)[:, CHANNELS:].argmax(1) for some in (originals, pictures))
    return _share(a == b, f"likeliest of 1,000 classes, {len(a)} photos")


def _stack(vectors: Iterator[Tensor]) -> Tensor:
    return torch.stack(list(vectors))


def _share(hits: Tensor, how: str) -> Score:
    values = hits.numpy().astype(np.float64)
    return Score(float(values.mean()), f"{how}, {PROTOCOL}", bootstrap_interval(values))
