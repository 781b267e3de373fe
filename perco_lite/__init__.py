"""perco_lite: a course and a codec that rebuild PerCo (Careil et al., ICLR 2024).

from perco_lite import PercoCodec, BitstreamError, ledger, RATES
"""

import importlib
import os

__version__ = "0.2.0"
SMOKE = os.environ.get("PERCO_LITE_SMOKE") == "1"  # notebooks take their short run (tests set it)

# Imported when first asked for: `perco --help` and the bitstream need no torch.
_HOMES = {
    "PercoCodec": "codec",
    "BitstreamError": "coding.bitstream",
    "ledger": "coding.bitstream",
    "RATES": "rates",
}
__all__ = ["BitstreamError", "PercoCodec", "RATES", "SMOKE", "ledger"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"perco_lite.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'perco_lite' has no attribute {name!r}")
