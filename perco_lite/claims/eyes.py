"""What is measured of a picture beside its original; each network is loaded when it is first asked.

    original, picture ──Eyes.see──► figures: psnr, lpips_alex
                               └──► features: "inception" (P,2048) float32, "labels" (C,C) int64

Figures are a photo's own. Features are what KID, FID and mIoU of any set of photos can be computed
from (``sets``), and are kept for that.

Paper: PerCo, Sec. 4.1.
Differs from the paper: PSNR as well; see each metric's own module.
"""

from functools import cache, cached_property

import numpy as np
from PIL import Image

from perco_lite import metrics
from perco_lite.claims.photos import ClaimPhoto
from perco_lite.data import find_file
from perco_lite.evaluation.datasets import read_instances
from perco_lite.evaluation.metrics import realism, semantics
from perco_lite.metrics import Unavailable

FIGURES = ("psnr", "lpips_alex")
FEATURES = ("inception", "labels")
# what a metric of the list is computed from
SEEN_BY = {"fid_256": "inception", "kid_256": "inception", "miou_masks": "labels"}


class Eyes:
    """The measures of a picture, by name."""

    def see(
        self, names: tuple[str, ...], photo: ClaimPhoto, original: Image.Image, picture: Image.Image
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Figures and features of these names; ``Unavailable`` where a network is not here."""
        figures = {
            name: getattr(self, name)(original, picture) for name in FIGURES if name in names
        }
        features = {}
        if "inception" in names:
            features["inception"] = self.inception(picture)
        if "labels" in names:
            features["labels"] = self.labels(photo, picture)
        return figures, features

    def psnr(self, original: Image.Image, picture: Image.Image) -> float:
        return metrics.psnr(original, picture)

    def lpips_alex(self, original: Image.Image, picture: Image.Image) -> float:
        return metrics.load_lpips("alex")(original, picture)

    def inception(self, picture: Image.Image) -> np.ndarray:
        """Vectors of its 256-pixel patches, as MS-ILLM; none of a picture smaller than one."""
        network = realism.load_inception()
        return realism.photo_features(picture, network, realism.PATCH).numpy()

    def labels(self, photo: ClaimPhoto, picture: Image.Image) -> np.ndarray:
        """Pixels by (class of the mask that people drew, class that the segmenter sees)."""
        size, instances = self._masks[photo.name.partition("/")[2]]
        drawn = semantics.label_map(instances, size, self._segmenter.labels)
        truth = np.asarray(photo.cut(Image.fromarray(drawn)))
        return semantics.confusion(self._segmenter(picture), truth, self._segmenter.classes)

    @cached_property
    def _segmenter(self):
        return semantics.load_segmenter()

    @cached_property
    def _masks(self) -> dict:
        return _read_masks()


@cache
def _read_masks() -> dict:
    path = find_file("coco_eval", "instances.json")
    if path is None:
        raise Unavailable("coco_eval has no instances.json with masks (data/README.md)")
    return read_instances(path)
