"""The methods of an evaluation by name: which can run here, and why the others cannot.

    names, weights, rates ──build_methods──► [method, …], {name: reason}
    method.run(photos, images, rates) ──► Attempt, Attempt, …

Paper: PerCo, Sec. 4: VTM, BPG, HiFiC, MS-ILLM and others.
Differs from the paper: what cannot run is named, and nothing takes its place.
"""

from collections.abc import Iterable

from perco_lite.codec import PercoCodec
from perco_lite.evaluation.codecs import classical, external, learned
from perco_lite.evaluation.codecs.ours import OURS, Ceiling, Decoding, Estimate, Perco, PercoFiles
from perco_lite.metrics import Unavailable
from perco_lite.rates import get_rate

KNOWN = (*OURS, *classical.CODECS, *external.EXTERNAL_CODECS, *learned.LEARNED_CODECS)


def build_methods(
    names: Iterable[str],
    codec: PercoCodec | None,
    rates: tuple[str, ...],
    ladder: tuple[float, ...],
    decoding: Decoding,
    rounds: int | None = None,
) -> tuple[list, dict[str, str]]:
    """Methods in the order of their names, and for each that cannot run here, why.

    Raises ``ValueError`` for an unknown name or rate, or where none can run.
    """
    for rate in rates:
        get_rate(rate) if codec is None else codec.rate(rate)
    for bpp in ladder:
        if not 0 < bpp <= 24:
            raise ValueError(f"got {bpp:g} bpp on the ladder, expected above 0 and at most 24")
    files = PercoFiles(codec, rounds) if codec is not None else None
    ours = {
        "perco": lambda: Perco(files, rates, decoding),
        "perco-estimate": lambda: Estimate(files, rates, decoding),
        "autoencoder": lambda: Ceiling(codec),
    }
    methods, missing = [], {}
    for name in dict.fromkeys(names):
        if name in OURS and codec is None:
            raise ValueError(f"got codec {name!r} but no weights; pass a PercoCodec")
        try:
            if name in OURS:
                methods.append(ours[name]())
            elif name in classical.CODECS:
                classical.check_available(name)
                methods.append(classical.Classical(name, rates, ladder, files=files))
            elif name in external.EXTERNAL_CODECS:
                if reason := external.why_not(name):
                    raise Unavailable(reason)
                near = external.encode_near
                methods.append(classical.Classical(name, rates, ladder, near, files))
            elif name in learned.LEARNED_CODECS:
                methods.append(learned.load_learned_family(name))
            else:
                raise ValueError(f"got codec {name!r}, expected some of {', '.join(KNOWN)}")
        except Unavailable as error:
            missing[name] = str(error)
    if not methods:
        raise ValueError(f"none of the codecs works here: {missing}")
    return methods, missing
