"""The claims themselves, in the order of the paper's research questions.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    what a photo costs · RQ1, RQ3 realism and rate · RQ2 conditioning · RQ4 sampling · training
    · RQ5 bottleneck, size · fewer bytes than the paper, which are claims of this project

``where`` carries the mark of how surely we know that the paper says so: [S] read in a source, [I]
inferred from one, [R] recalled, unverified. The paper's own PDF was not at hand.

A claim's ``matters`` is the smallest effect worth having. It was set before measuring: 0.1 dB, 0.05
of the feature distance (about 2 between unlike photos), 0.01 of MS-SSIM, 0.002 of a v-loss of about
0.5, a twentieth of a patch Fréchet distance.

Paper: PerCo, RQ1 to RQ5.
Differs from the paper: the words are ours.
"""

import math

from perco_lite.claims import measures as how
from perco_lite.claims.claim import Claim
from perco_lite.claims.measures import HIGH, LOW, at_most, pair, sets, within

DB, FEATURE, V_LOSS, SIMILARITY, PERCENT = 0.1, 0.05, 0.002, 0.01, 5.0
SMALL = "A 20 M model and 24 crops of 256 pixels"
OWN, NONE, OTHERS = (LOW, "human"), (LOW, "none"), (LOW, "another photo's")
SAME_BITS = "Same bits, decoded twice; our realism figure knows texture, not objects."
LISTENS = "Held-out COCO photos; only the words differ. This model was trained on 9,000 captions."

LATER = "Added after the figures were seen."

CLAIMS = (
    Claim(
        "rates", "Indices cost exactly log₂ K bits each, at every rate",
        "Table 2 [S]", "ledgers", "96 to 6144 bytes for 768×512 (four of eight rates)",
        how.index_bytes, "Bytes are bytes: counted in the files.", (-0.5, 0.5), comparable=True,
    ),
    Claim(
        "153", "A Kodak photo fits in less than 153 bytes",
        "abstract [S], bytes [I]", "ledgers", "153 bytes, grid and caption",
        how.stored_under_153, "57 bytes are left for words, about 53 letters.",
        comparable=True,
    ),
    Claim(
        "153-human", "… and does with captions that people write",
        "same [I]", "ledgers", "153 bytes",
        how.human_under_153, "COCO's captions and Kodak's grid (96 bytes); no BLIP-2 at hand.",
        comparable=True,
    ),
    Claim(
        "text-share", "At the lowest rate the caption takes 40 to 55 % of the bits",
        "curves of COCO-30k [I]", "ledgers", "official 66–76 of 130–140 bytes, PerCo (SD) 45–48 %",
        how.text_share, "zlib, as in the paper; human captions for BLIP-2's.", (0.40, 0.55),
        comparable=True,
    ),
    Claim(
        "uniform", "A uniform code for the indices wastes little: less than 5 %",
        "Sec. 3.2 [S], margin ours", "entropy", "none; PerCoV2's learned code saves 9 %",
        how.uniform_code, "A static code without context; neighbours save more: see “prior”.",
        at_most(0.05), comparable=True,
    ),
    Claim(
        "realistic", "Pictures stay realistic down to 0.003 bpp: within 8.6 times the autoencoder",
        "RQ1 [S], ratio [I]", "rate", "FID 5.48 at 0.0042 bpp, SD's autoencoder 0.64",
        how.near_the_ceiling, "Patch Fréchet distance for FID; our autoencoder is itself blurred.",
        at_most(8.6),
    ),
    Claim(
        "diffusion", "At the lowest rate, diffusion makes pictures more realistic than regression",
        "RQ1 [S]", "rate", "none read", sets("rate", (LOW, "perco"), (LOW, "no diffusion")),
        SAME_BITS, matters=PERCENT,
    ),
    Claim(
        "flat", "Realism depends less on the rate than distortion does",
        "RQ3 [S]", "rate", "FID ×5.4, 1 − MS-SSIM ×5.0, LPIPS ×5.2 from 0.0042 to 0.127 bpp",
        how.flatter_than_distortion, "In ratios the paper's own curves do not show it either.",
        matters=0.1,
    ),
    Claim(
        "flatter", "… and less than it does without diffusion",
        "RQ3 [S]", "rate", "none read", how.flatter_than_regression, SAME_BITS, matters=0.1,
    ),
    Claim(
        "codecs", "More realistic at the lowest rate than codecs without a generator",
        "RQ3 [S]", "rate", "best FID and KID below 0.1 bpp, COCO",
        how.against_modern_codecs, "AVIF and WebP at the smallest they can, several times our "
        "bytes; the paper has HiFiC, MS-ILLM, VTM.", matters=PERCENT,
    ),
    Claim(
        "semantics", "Better CLIP score and mIoU than others, mostly at the lowest rates",
        "RQ3 [S]", "missing", "none read", how.semantic_metrics, "Needs weights from a hub.",
    ),
    Claim(
        "text", "The caption helps: own caption against none",
        "RQ2 [S]", "captions", "none read", pair("captions", "v_loss", OWN, NONE, "of v-loss", -1),
        LISTENS, matters=V_LOSS,
    ),
    Claim(
        "wrong-text", "The caption's content counts: own against another photo's",
        "RQ2 [S]", "captions", "none read",
        pair("captions", "v_loss", OWN, OTHERS, "of v-loss", -1), LISTENS, matters=V_LOSS,
    ),
    Claim(
        "text-picture", "… and shows in the picture (guidance 3)",
        "RQ2 [S]", "conditions", "none read",
        pair("conditions", "feature_distance", (LOW, "text: own"), (LOW, "text: another's"),
             "of feature distance", -1),
        f"{SMALL}.", matters=FEATURE,
    ),
    Claim(
        "text-realism", "… and in its realism: own caption (guidance 3) against none",
        "RQ2 [S]", "conditions", "better FID, none read",
        sets("conditions", (LOW, "text: own"), (LOW, "text: none")),
        f"{LATER} Guidance alone may do it: see claim on guidance.", matters=PERCENT,
    ),
    Claim(
        "na", "A text that says nothing (“NA”) is as good as none",
        "not in what we read [R]", "captions", "none",
        pair("captions", "v_loss", (LOW, "NA"), NONE, "of v-loss", -1),
        "“NA” is a caption it never saw.", within(V_LOSS), needs="text",
    ),
    Claim(
        "text-low", "The caption matters most at the lowest rate",
        "Fig. 13 [S, via PerCoV2]", "captions", "pictures only", how.text_at_low_and_high,
        LISTENS, matters=V_LOSS,
    ),
    Claim(
        "grid", "Spatial conditioning helps: own grid against none",
        "RQ2 [S]", "conditions", "none read",
        pair("conditions", "feature_distance", (LOW, "grid: own"), (LOW, "grid: none"),
             "of feature distance", -1),
        "“None” is a condition of zeros, which it never saw; the paper trains a model without.",
        matters=FEATURE,
    ),
    Claim(
        "wrong-grid", "… and own grid against another photo's",
        "RQ2 [S]", "conditions", "none read",
        pair("conditions", "psnr", (LOW, "grid: own"), (LOW, "grid: another's"), "dB"),
        f"{SMALL}.", matters=DB,
    ),
    Claim(
        "grid-realism", "… and own grid makes it more realistic than none",
        "RQ2 [S]", "conditions", "better FID, none read",
        sets("conditions", (LOW, "grid: own"), (LOW, "grid: none")),
        f"{LATER} “None” is a condition of zeros.", matters=PERCENT,
    ),
    Claim(
        "sources", "Who writes the caption hardly matters: one person against another",
        "RQ2 [S]", "captions", "similar trends: COCO, BLIP-2, IDEFICS",
        pair("captions", "v_loss", OWN, (LOW, "another human"), "of v-loss", -1),
        "Two people's words cannot matter where having words does not.", within(V_LOSS),
        needs="text",
    ),
    Claim(
        "template", "… and a template of object names against a person",
        "RQ2 [S]", "captions", "similar trends",
        pair("captions", "v_loss", OWN, (LOW, "template"), "of v-loss", -1),
        "Names from COCO's masks stand for a captioner.", within(V_LOSS), needs="text",
    ),
    Claim(
        "guidance-distortion", "Guidance 3 is farther from the original than guidance 1",
        "RQ4 [R]", "guidance", "none read", pair("guidance", "psnr", (LOW, "1"), (LOW, "3"), "dB"),
        f"{SMALL}.", matters=DB,
    ),
    Claim(
        "guidance-realism", "… and more realistic than guidance 1",
        "RQ4 [R]", "guidance", "3.0 is used", sets("guidance", (LOW, "3"), (LOW, "1")),
        "CLIP score, by which it would show, was not at hand.", matters=PERCENT,
    ),
    Claim(
        "guidance-best", "… with the best near 3: more realistic than 5",
        "RQ4 [R]", "guidance", "3.0 is used", sets("guidance", (LOW, "3"), (LOW, "5")),
        LATER, matters=PERCENT,
    ),
    Claim(
        "few-steps", "5 steps are enough from 0.05 bpp up",
        "App. A, Fig. 8 [S]", "steps", "5 steps at 0.05 bpp and above",
        pair("steps", "feature_distance", (HIGH, "20"), (HIGH, "5"), "of feature distance", -1),
        "How much worse 5 are than 20, at most 0.05. Fewer steps are smoother, hence nearer.",
        at_most(FEATURE),
    ),
    Claim(
        "few-steps-realism", "… and as realistic, to 5 %",
        "App. A, Fig. 8 [S], margin ours", "steps", "5 steps at 0.05 bpp and above",
        sets("steps", (HIGH, "20"), (HIGH, "5")),
        f"{LATER} How much more realistic 20 are than 5.", at_most(PERCENT),
    ),
    Claim(
        "many-steps", "The lowest rate needs 20 steps: more realistic than with 5",
        "App. A [S]", "steps", "20 steps at the lowest rates",
        sets("steps", (LOW, "20"), (LOW, "5")), SAME_BITS, matters=PERCENT,
    ),
    Claim(
        "seeds", "Seeds differ most at the lowest rate",
        "README of PerCo (SD) [S]", "seeds", "pictures only",
        pair("seeds", "spread", (LOW, "spread"), (HIGH, "spread"), "grey levels"),
        "Variation, good or bad: three seeds.", matters=1.0,
    ),
    Claim(
        "lpips", "A feature loss in training brings features nearer above 0.05 bpp",
        "RQ4 [S]", "trainings", "LPIPS 0.104 with, 0.140 without (PerCo (SD)) at 0.127 bpp",
        pair("trainings", "feature_distance", (HIGH, "one rate, feature loss"), (HIGH, "one rate"),
             "of feature distance", -1),
        "100 steps, one seed; loss and measure are the same features, as LPIPS is in the paper.",
        matters=FEATURE, one_run=True,
    ),
    Claim(
        "lpips-ssim", "… and raises MS-SSIM",
        "RQ4 [S]", "trainings", "MS-SSIM 0.880 with, 0.855 without at 0.127 bpp",
        pair("trainings", "ms_ssim", (HIGH, "one rate, feature loss"), (HIGH, "one rate"), ""),
        "100 steps, one seed. The paper's two figures are of two models.", matters=SIMILARITY,
        one_run=True,
    ),
    Claim(
        "one-rate", "A model for one rate beats one for all rates",
        "Sec. 4.1 [S]: one model a rate", "trainings", "no ablation read",
        pair("trainings", "v_loss", (HIGH, "one rate"), (HIGH, "all rates"), "of v-loss", -1),
        "100 steps from weights trained on all rates, one seed; the other had 25 at this rate.",
        matters=V_LOSS, one_run=True,
    ),
    Claim(
        "bound", "The autoencoder alone is far better than any file",
        "RQ5 [S]", "bottleneck", "LPIPS 0.065 alone, 0.104 at 0.127 bpp",
        pair("bottleneck", "feature_distance", ("", "autoencoder"), (HIGH, "as sent"),
             "of feature distance", -1),
        "At the highest rate, where it is hardest.", matters=FEATURE,
    ),
    Claim(
        "quantizer", "What limits is the quantizer: it costs more than half of that gap",
        "RQ5 [S], half is ours", "bottleneck", "none read", how.quantizer_share,
        "The unquantized features go through a decoder trained on codes; the paper removes grid "
        "and quantizer together.",
    ),
    Claim(
        "large", "A larger picture, painted whole, is worse: 1024 pixels against 512",
        "limitations [S]", "sizes", "none read",
        pair("sizes", "psnr", (LOW, "single"), (LOW, "mosaic 2x2"), "dB"),
        "Mosaics: the same photos, sharpness and rate.", matters=DB,
    ),
    Claim(
        "tiles", "Overlapping tiles cure it: 2048 pixels as good as 512",
        "limitations [S]", "sizes", "none read",
        pair("sizes", "psnr", (LOW, "mosaic 4x4"), (LOW, "single"), "dB"),
        "As good or better. Objects stay small; real large photos have larger ones.",
        (-DB, math.inf),
    ),
    Claim(
        "under-100", "Whole file, header and checksum too: a Kodak photo in under 100 bytes",
        "ours; abstract [S] says 153", "ledgers", "153 bytes, grid and caption alone",
        how.whole_under_100, "Captions of 8 to 12 words; decoded exactly on any machine.",
        comparable=True,
    ),
    Claim(
        "prior", "A prior that sees neighbours saves at least 15 % of the indices' bits",
        "ours; Sec. 3.2 [S] has a uniform code", "ledgers", "0; PerCoV2's learned code saves 9 %",
        how.prior_saves((LOW,), 0.15), "The prior was trained on other photos. Effect: less 15 %.",
        comparable=True,
    ),
    Claim(
        "prior-high", "… and at least 20 % at each of the higher rates",
        "ours; Sec. 3.2 [S]", "ledgers", "0",
        how.prior_saves(how.LITE_RATES[1:], 0.20), "Decided by the rate at which it saves least.",
        comparable=True,
    ),
    Claim(
        "caption-coder", "A caption costs less than a quarter of what zlib makes of it",
        "ours; Sec. 3.2 [S] has zlib", "ledgers", "1",
        how.caption_share, "The same captions, as people wrote them. Held-out photos.",
        at_most(0.25), comparable=True,
    ),
    Claim(
        "whole", "The whole file is smaller than the paper's account of the same photo and words",
        "ours; account [I]", "ledgers", "log₂ K bits an index and zlib, no header",
        how.against_the_paper, "Same indices, same captions.", comparable=True,
    ),
)  # fmt: skip
