"""DeepLab v3 on MobileNet v2, trained on PASCAL VOC: a segmenter that one file and a CPU can run.

    photo (W×H) ──long side to 513, grey below and right──► (1,513,513,3) uint8
        ──TensorFlow Lite──► classes (513,513) ──cut, nearest──► label map (H,W)

It knows 20 things and the background. On the 100 photos of COCO `miou_masks` of the originals is
0.63 [0.49, 0.67], about the most that a reconstruction can be expected to reach.

Paper: PerCo, Sec. 4.1 (mIoU).
Differs from the paper: its segmenter is a ViT-Adapter; figures compare with ours only.
"""

import hashlib
from functools import cache

import numpy as np
from PIL import Image

from perco_lite.data import find_file
from perco_lite.metrics import Unavailable, first_line

FILE = "deeplabv3_mnv2_pascal_quant.tflite"  # of the data folder "weights"
SHA256 = "350af47fd346ea6d74b58833a351f583ba860e9806ec5bd292ff8d8f1f249398"
SIDE, GREY = 513, 128
CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()


class DeepLab:
    """Photo (PIL RGB, W×H) -> label map (H,W) int64, numbers of CLASSES; as ``Segmenter``."""

    labels = dict(enumerate(CLASSES))
    classes = len(CLASSES)

    def __init__(self, interpreter):
        """``interpreter``: TensorFlow Lite's, of a network (1,513,513,3) uint8 -> (1,513,513)."""
        self.interpreter = interpreter
        interpreter.allocate_tensors()
        self.input, self.output = (
            details()[0]["index"]
            for details in (interpreter.get_input_details, interpreter.get_output_details)
        )
        self.protocol = (
            f"DeepLab v3, MobileNet v2, 8-bit, PASCAL VOC (sha256 {SHA256[:12]}), 21 classes, long "
            f"side to {SIDE}, the rest grey"
        )

    def __call__(self, image: Image.Image) -> np.ndarray:
        if image.mode != "RGB":
            raise ValueError(f"got a photo of mode {image.mode}, expected RGB; use data.to_rgb")
        scale = SIDE / max(image.size)
        size = tuple(max(1, round(side * scale)) for side in image.size)
        framed = Image.new("RGB", (SIDE, SIDE), (GREY,) * 3)
        framed.paste(image.resize(size, Image.Resampling.BILINEAR))
        self.interpreter.set_tensor(self.input, np.asarray(framed)[None])
        self.interpreter.invoke()
        found = self.interpreter.get_tensor(self.output)[0, : size[1], : size[0]]
        labels = Image.fromarray(found.astype(np.uint8))
        return np.asarray(labels.resize(image.size, Image.Resampling.NEAREST)).astype(np.int64)


@cache
def load_deeplab() -> DeepLab:
    """DeepLab; ``Unavailable`` without its file, or the package that runs it."""
    path = find_file("weights", FILE)
    if path is None:
        raise Unavailable(f'DeepLab: no {FILE} in a data folder "weights" (data/README.md)')
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise Unavailable(f"DeepLab: {path} is not the published file: refused")
    try:
        from ai_edge_litert.interpreter import Interpreter
    except (ImportError, OSError) as error:
        raise Unavailable(
            f'DeepLab: {first_line(error)}; pip install "perco_lite[metrics]"'
        ) from error
    return DeepLab(Interpreter(model_content=data, num_threads=1))
