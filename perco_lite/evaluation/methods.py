"""The codecs of an evaluation by name: which can run here, and why others cannot.

    names, weights, rates ──build_methods──► [method, …], {name: why it cannot run here}

Paper: PerCo, Sec. 4: VTM, BPG, HiFiC, MS-ILLM and others.
Differs from the paper: what cannot run is named, and nothing takes its place.
"""

from collections.abc import Iterable

from perco_lite.codec import PercoCodec
from perco_lite.evaluation.codecs import classical, controls, external, learned, shrunk, variants
from perco_lite.evaluation.codecs.ours import OURS, Ceiling, Decoding, Estimate, Perco, PercoFiles
from perco_lite.evaluation.datasets import PhotoSet
from perco_lite.metrics import Unavailable
from perco_lite.rates import get_rate

MODULES = dict.fromkeys(classical.CODECS, classical)  # of codecs that search for a size
MODULES |= dict.fromkeys(external.EXTERNAL_CODECS, external)
MODULES |= dict.fromkeys(shrunk.SHRUNK_CODECS, shrunk)
KNOWN = (*OURS, *MODULES, *learned.LEARNED_CODECS, *controls.CONTROLS)


def build_methods(
    names: Iterable[str],
    codec: PercoCodec | None,
    rates: tuple[str, ...],
    ladder: tuple[float, ...],
    decoding: Decoding,
    rounds: int | None = None,
    photos: PhotoSet | None = None,
) -> tuple[list, dict[str, str]]:
    """Methods in the order of their names, and for each that cannot run here, why.

    ``photos``: see ``variants.build_variant``. Raises ``ValueError`` for an unknown name, rate or
    rung, or where none can run.
    """
    for rate in rates:
        get_rate(rate) if codec is None else codec.rate(rate)
    for bpp in ladder:
        if not 0 < bpp <= 24:
            raise ValueError(f"got {bpp:g} bpp on the ladder, expected above 0 and at most 24")
    files = PercoFiles(codec, rounds) if codec is not None else None
    methods, missing = [], {}
    for name in dict.fromkeys(names):
        ours = variants.is_ours(name)
        if name not in KNOWN and not ours:
            raise ValueError(f"got codec {name!r}, expected some of {', '.join(KNOWN)}")
        if ours and codec is None:
            raise ValueError(f"got codec {name!r} but no weights; pass a PercoCodec")
        try:
            if name == "autoencoder":
                method = Ceiling(files)
            elif ours and name not in OURS:
                method = variants.build_variant(name, files, rates, decoding, photos)
            elif name in OURS:
                method = (Perco if name == "perco" else Estimate)(files, rates, decoding)
            elif name in learned.LEARNED_CODECS:
                method = learned.load_learned_family(name)
            elif name in controls.CONTROLS:
                folder = photos.photos[0].path.parent if photos and photos.photos else None
                method = controls.build_control(name, files, rates, folder)
            else:
                module = MODULES[name]
                module.check_available(name)
                # on the ladder nothing needs to be shrunk
                rungs = () if module is shrunk else ladder
                method = classical.Classical(name, rates, rungs, module.encode_near, files)
            methods.append(method)
        except Unavailable as error:
            missing[name] = str(error)
    if not methods:
        raise ValueError(f"none of the codecs works here: {missing}")
    return methods, missing
