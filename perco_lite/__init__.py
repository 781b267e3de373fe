"""perco_lite: a course and a codec that rebuild PerCo (Careil et al., ICLR 2024).

from perco_lite import PercoCodec, BitstreamError, ledger, RATES
"""

import importlib

__version__ = "0.1.0"

# Imported when first asked for: `perco --help` and the bitstream need no torch.
_HOMES = {
    "PercoCodec": "codec",
    "BitstreamError": "bitstream",
    "ledger": "bitstream",
    "RATES": "rates",
}
__all__ = ["BitstreamError", "PercoCodec", "RATES", "ledger"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"perco_lite.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'perco_lite' has no attribute {name!r}")
