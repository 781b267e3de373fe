"""Bjøntegaard's deltas: how many bytes one rate curve costs against another, at equal quality.

    reference: (rates, quality) ─┐        ┌─ mean gap of log rate at equal quality ──► bd_rate, %
    tested:    (rates, quality) ─┴─ sort ─┴─ mean gap of quality at equal rate ──► bd_metric

The integral over piecewise cubic curves (PCHIP) is the ``bjontegaard`` package's; ours is that
curves come in any order and that nothing is reported which the points do not support.

Paper: Bjøntegaard, ITU-T VCEG-M33 (2001). PerCo shows curves, no deltas.
Differs from the paper: PCHIP, which does not swing between points, in place of one cubic.
"""

from collections.abc import Sequence

import numpy as np

METHOD = "pchip"
MIN_POINTS = 2  # four are usual; with two, the curve is a line
MIN_OVERLAP = 0.1  # of the range of both curves together, that both must cover


def bd_rate(
    reference_rates: Sequence[float],
    reference_quality: Sequence[float],
    rates: Sequence[float],
    quality: Sequence[float],
    higher_is_better: bool = True,
) -> float:
    """Per cent of rate that the tested curve needs more (> 0) or less (< 0) for equal quality.

    Rates are positive and in any one unit. Raises ``ValueError`` for under two points, for quality
    that does not rise with rate, and for curves that share under a tenth of their quality;
    ``ImportError`` without the package.
    """
    sign = 1 if higher_is_better else -1
    reference = _curve("reference", reference_rates, reference_quality, sign)
    tested = _curve("tested", rates, quality, sign)
    _check_overlap("quality", reference[1], tested[1])
    return _delta("bd_rate", reference, tested)


def bd_metric(
    reference_rates: Sequence[float],
    reference_quality: Sequence[float],
    rates: Sequence[float],
    quality: Sequence[float],
) -> float:
    """Mean gap of quality (tested minus reference) over the rates that both curves cover.

    In units of the metric, as "BD-PSNR" is in dB. Raises as ``bd_rate``, but quality may fall.
    """
    reference = _curve("reference", reference_rates, reference_quality, None)
    tested = _curve("tested", rates, quality, None)
    _check_overlap("log rate", np.log(reference[0]), np.log(tested[0]))
    return _delta("bd_psnr", reference, tested)


def _delta(function: str, *curves: tuple[np.ndarray, np.ndarray]) -> float:
    try:
        import bjontegaard
    except ImportError as error:
        raise ImportError(
            f'the package bjontegaard does not load ({error}); pip install "perco_lite[metrics]"'
        ) from error
    figures = [figure for curve in curves for figure in curve]
    return float(getattr(bjontegaard, function)(*figures, METHOD, False, min_overlap=0))


def _curve(name: str, rates, quality, sign: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Points in order of rate; with a ``sign``, quality times sign, which must rise."""
    rates, quality = np.asarray(rates, np.float64), np.asarray(quality, np.float64)
    if rates.shape != quality.shape or rates.ndim != 1 or len(rates) < MIN_POINTS:
        raise ValueError(
            f"got {rates.shape} rates and {quality.shape} qualities in the {name} curve, "
            f"expected as many of each and at least {MIN_POINTS}; measure more rates"
        )
    if not (np.isfinite(rates).all() and np.isfinite(quality).all() and (rates > 0).all()):
        raise ValueError(f"the {name} curve has points that are no positive rate and finite score")
    order = np.argsort(rates)
    rates, quality = rates[order], quality[order] * (sign or 1)
    if (np.diff(rates) <= 0).any():
        raise ValueError(f"the {name} curve has two points of one rate; leave out one of them")
    if sign is not None and (np.diff(quality) <= 0).any():
        raise ValueError(
            f"quality in the {name} curve does not rise with rate, so that equal quality is not "
            "at one rate; compare qualities at equal rate (bd_metric)"
        )
    return rates, quality


def _check_overlap(name: str, a: np.ndarray, b: np.ndarray) -> None:
    shared = min(a.max(), b.max()) - max(a.min(), b.min())
    share = max(shared, 0) / (max(a.max(), b.max()) - min(a.min(), b.min()))
    if share == 0 or share < MIN_OVERLAP:
        raise ValueError(
            f"the curves share {share:.1%} of their {name}, expected at least {MIN_OVERLAP:.0%}; "
            "measure rates at which they meet"
        )
