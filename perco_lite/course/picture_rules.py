"""Exercises of the other notebooks: networks, painters, judges.

Paper: nothing on this.
"""

import numpy as np

from perco_lite.course.rules import number, rule, several, tried, tried_for_number


@rule("01.1")
def _folded(answer: object) -> str | None:
    try:
        mean, std = (np.asarray(values, dtype=float) for values in answer)
    except (TypeError, ValueError):
        return "expected two: the means and the deviations"
    if not np.allclose(std, 1):
        return "the deviations still divide (expected: means, then deviations)"
    return None if np.allclose(mean, 0) else "the means still shift"


number("01.2", "a6c4241d6972", 0, "places")


@rule("01.3")
def _overlap(answer: object) -> str | None:
    import torch

    from perco_lite.autoencoder import Autoencoder
    from perco_lite.codec import BUNDLED

    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < 100:
        return "expected a whole number of latents"
    model = Autoencoder.from_pretrained(BUNDLED / "autoencoder").float().eval()
    if answer > model.decoder_reach:
        return "less will do: no pixel sees that far"
    latents = torch.randn(1, 4, 6, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        left = model.decode(latents[..., : 20 + answer])[..., :160]
        seam = (left - model.decode(latents)[..., :160]).abs().max().item()
    return "on some photos a seam is left that can be seen" if seam * 127.5 > 0.5 else None


number("02.1", "d638c5c147f4", 1, "how many times fewer")


@rule("02.2")
def _reactions(answer: object) -> str | None:
    values, off = several(
        answer, 3, "three reactions: the own cell's, the next one's, the corner's"
    )
    if off:
        return off
    own, near, far = values
    if far < 0 or not own > near > far:
        return "the nearer a cell, the more it reacts; sizes are asked for, the own cell's first"
    return None if far < 1e-3 * own else "the far corner hardly reacts: was one cell changed?"


number("02.3", "13ae34ba3bdb", 0, "bytes")


@rule("03.1")
def _decibels(answer: object) -> str | None:
    values, off = several(answer, 3, "three PSNRs, for K = 16, 64 and 256")
    if off:
        return off
    first, second, third = values
    if not 10 < first < 40:
        return "a PSNR of patches in [-1, 1] lies between 10 and 40 dB; the peak is 2"
    if not first < second < third:
        return "more bits, and yet no smaller error: is each codebook revived?"
    if max(second - first, third - second) > 6:
        return (
            "two bits more for a whole patch do not buy 6 dB: is the error that of the last steps?"
        )
    return None


@rule("03.2")
def _who_wins(answer: object) -> str | None:
    if answer not in ("random", "trained"):
        return 'expected "random" or "trained"'
    return None if answer == "random" else "so one would think; run it"


@rule("03.3")
def _no_codebook(answer: object) -> str | None:
    import torch

    features = torch.randn(32, 64, 1, 1, generator=torch.Generator().manual_seed(0)) * 3
    features = torch.cat([features, 1.001 * features]).requires_grad_()  # pairs share most indices
    found, off = tried(answer, features)
    if off:
        return off
    if not isinstance(found, tuple) or len(found) != 2:
        return "expected the quantized features and the indices"
    quantized, indices = found
    if not isinstance(quantized, torch.Tensor) or quantized.shape != features.shape:
        return "what comes back has another shape than the features"
    if indices.is_floating_point() or indices.min() < 0 or indices.max() > 255:
        return "four levels of four channels are whole numbers from 0 to 255"
    if not quantized.requires_grad or torch.autograd.grad(quantized.sum(), features)[0].norm() == 0:
        return "no gradient reaches the features"
    rows, one = quantized.detach().flatten(1), indices.flatten()
    apart = (rows[:, None] - rows).abs().amax(-1) > 1e-4
    if len(one) != len(rows) or (apart & (one[:, None] == one)).any():
        return "one index for two vectors: how would a receiver know which?"
    return None


number("07.1", "1041d5a69bda", 3, "the clean value")
number("07.2", "690ca5006dda", 2, "how many times")


@rule("07.3")
def _median(answer: object) -> str | None:
    for values in ([0.0, 0.0, 10.0], [1.0, 2.0, 3.0, 40.0], [-5.0]):
        found, off = tried_for_number(answer, np.array(values))
        if off:
            return off
        error = np.abs(np.array(values) - np.asarray(found)).mean()
        others = np.abs(np.array(values)[:, None] - np.linspace(-10, 50, 6001)).mean(axis=0)
        if error > others.min() + 1e-6:
            better = "the mean" if np.isclose(found, np.mean(values)) else "that"
            return f"for {values} another guess has a smaller absolute error than {better}"
    return None


@rule("08.1")
def _decided(answer: object) -> str | None:
    shares, off = several(answer, 4, "the shares at 1, 2, 5 and 20 steps", shares=True)
    if off:
        return off
    one, *_, twenty = shares
    if one > 0.2:
        return "one step cannot decide: it paints the mean of both directions"
    return None if twenty > 0.6 else "twenty steps decide most pictures: was the model trained?"


number("08.2", "16d5bc128afb", 3, "the velocity")


@rule("08.3")
def _widened(answer: object) -> str | None:
    import torch

    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 5, 3, padding=1)
    image = torch.randn(1, 5, 6, 6)
    before = conv(image[:, :3]).detach()
    wide, off = tried(answer, conv, 2)
    if off:
        return off
    if not isinstance(wide, torch.nn.Conv2d) or wide.in_channels != 5:
        return "expected a convolution with two more input channels"
    if wide is conv or conv.in_channels != 3:
        return "it changed the layer that it was given; make a new one"
    if not torch.allclose(wide(image), before, atol=1e-5):
        return "its output is not the old one"
    wide(image).square().sum().backward()
    if wide.weight.grad is None or not wide.weight.grad[:, 3:].any():
        return "the new weights get no gradient, so they would never learn"
    return None


@rule("09.1")
def _rulers(answer: object) -> str | None:
    values, off = several(answer, 3, "three gaps, at temperatures 0, 0.5 and 1")
    if off:
        return off
    if min(values) < 0:
        return "a gap is a distance, never negative"
    return None if values[2] < values[0] else "one of the two dials should bring texture"


number("09.2", "400003250a9f", 0, "a squared error")
number("09.3", "2a58efd510cf", 0, "bits")


@rule("10.1")
def _judged(answer: object) -> str | None:
    shares, off = several(
        answer, 3, "three shares, at weights 0, 0.1 and 1 (a score's .real)", shares=True
    )
    if off:
        return off
    none, little, much = shares
    if none > 0.1:
        return "without a judge it paints the mean, and that is no picture of this world"
    return None if max(little, much) > 0.5 else "a judge makes most of them real: was it trained?"


number("10.2", "28e93945fd61", 3, "the judge's loss")


@rule("10.3")
def _single(answer: object) -> str | None:
    import torch

    # the fourth is in the middle; by their distance from it, the other three are alike
    around = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.1, 0.1]]
    # distances that are not squared choose another one of these, the largest one of those
    few, many = ([[0.0, 0.0]] * count + [[1.0, 0.0], [5.0, 0.0]] for count in (3, 20))
    for what, places, features in (
        ("their places", around, lambda x: x),
        ("the distance from the middle", around, lambda x: x.norm(dim=1, keepdim=True)),
        ("the mean of their squared distances", few, lambda x: x),
        ("the mean of their squared distances", many, lambda x: x),
    ):
        pictures = torch.tensor(places)
        found, off = tried(answer, pictures, features)
        if off:
            return off
        if not isinstance(found, torch.Tensor) or found.shape != (2,):
            return "expected one of the pictures, of shape (2,)"
        if not (found == pictures).all(dim=1).any():
            return f"by {what}, what came back is none of the pictures"
        seen = features(pictures)
        away = (features(found[None]) - seen).square().sum(1).mean()
        if away > torch.cdist(seen, seen).square().mean(1).min() + 1e-6:
            return f"by {what}, another picture is nearer to all"
    return None


@rule("11.1")
def _costs(answer: object) -> str | None:
    values, off = several(answer, 3, "dB lost by the shipped autoencoder at 0.03, 0.1 and 0.3")
    if off:
        return off
    if values != sorted(values) or values[0] < -0.5:
        return "more noise costs more; what is lost is asked for, not what is left"
    return None if 2 < values[2] < 20 else "0.3 costs more than a little: are the latents scaled?"


number("11.2", "3ca55439f9ab", 7, "a share")


@rule("11.3")
def _anew(answer: object) -> str | None:
    if not isinstance(answer, (list, tuple, set)) or not all(isinstance(n, str) for n in answer):
        return "expected one list of names of tensors: the conditioner's and the U-Net's"
    if not answer:
        return "something starts anew: the new rate has been nowhere yet"
    alike = all(name.startswith("branches.rate_0_0313.") for name in answer)
    if not alike:
        return "only what belongs to 0.0313 starts anew; what of the rest was lost?"
    whole = any(name.endswith("codebook") for name in answer)
    return None if whole else "more than that starts anew: are all of its names there?"


number("12.1", "21459fdef671", 3, "the share of the union")
number("12.2", "94a2cfbba135", 3, "FID")


@rule("12.3")
def _cheat(answer: object) -> str | None:
    from PIL import Image, ImageFilter

    from perco_lite.metrics import psnr

    noise = np.random.default_rng(0)
    plain = np.kron(noise.integers(40, 216, (16, 16, 3)), np.ones((8, 8, 1)))
    photo = Image.fromarray(
        np.clip(plain + noise.normal(0, 6, plain.shape), 0, 255).astype("uint8")
    )
    photo = photo.filter(ImageFilter.GaussianBlur(0.7))
    wave = 128 + 90 * np.sin(np.arange(128) * 2.1)[None, :, None] * np.ones((128, 1, 3))
    other = Image.fromarray(wave.astype("uint8"))
    found, off = tried(answer, photo, other)
    if off:
        return off
    if not isinstance(found, Image.Image) or found.size != photo.size:
        return "expected a PIL image of the photo's size"
    if psnr(photo, found) <= psnr(photo, photo.filter(ImageFilter.GaussianBlur(2))):
        return "the blur is still nearer to the photo"
    borrowed = (np.asarray(found, float) - np.asarray(photo, float)) * (wave - 128)
    if borrowed.mean() < 150:  # a twentieth would be 200, nothing 0
        return "the other photo's texture is not to be seen in it, or hardly"
    return None
