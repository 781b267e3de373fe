"""Words that come by themselves: a captioner small enough to travel with the codec.

from perco_lite.captioning import Captioner
Captioner.from_pretrained()(image) -> "A dog runs on the grass."
"""

from perco_lite.captioning.captioner import Captioner

__all__ = ["Captioner"]
