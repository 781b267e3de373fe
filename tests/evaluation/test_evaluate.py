"""The table and the summary of an evaluation: right figures, no row twice, nothing overwritten."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import make_photo, read_table
from perco_lite import codec as codec_module
from perco_lite.codec import PercoCodec
from perco_lite.coding import bitstream
from perco_lite.coding.bitstream import ledger, unpack
from perco_lite.evaluation import evaluate as evaluation
from perco_lite.evaluation import scoring
from perco_lite.evaluation.codecs import classical, external, ours
from perco_lite.evaluation.codecs.classical import encode_near, uniform_bytes
from perco_lite.evaluation.codecs.ours import Decoding, Perco, PercoFiles
from perco_lite.evaluation.datasets import open_dataset
from perco_lite.evaluation.evaluate import build_methods, evaluate
from perco_lite.evaluation.table import ResultTable
from perco_lite.metrics import Unavailable, psnr

RATES = ("0.0019", "0.0313")
DECODING = Decoding(steps=2, seed=3)
FIGURES = ("psnr", "ms_ssim")


@pytest.fixture
def folder(tmp_path):
    """Three photos, two of them of one size, two with captions."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, size in enumerate(((72, 48), (72, 48), (50, 70))):
        make_photo(*size, seed).save(folder / f"{seed}.png")
    (folder / "captions.json").write_text(json.dumps({"0.png": "two dogs", "2.png": "a barn"}))
    return folder


@pytest.fixture
def run(tiny_codec, folder, tmp_path):
    """Evaluate the photos: (rows, summary); what the reader is told is in ``run.said``."""

    def run(codecs=("perco", "jpeg"), output="out.csv", **options):
        run.said = []
        photos = {n: options.pop(n) for n in ("limit", "captions", "resize") if n in options}
        options = {"decoding": DECODING, "metrics": FIGURES, "rates": RATES} | options
        options.setdefault("codec", tiny_codec)
        where = open_dataset(str(folder), **photos), tmp_path / output
        summary = evaluate(*where, codecs, quiet=True, say=run.said.append, **options)
        return read_table(tmp_path / output), summary

    return run


def same(rows, others):
    """Whether they differ in seconds alone."""
    kept = [[{k: v for k, v in r.items() if "seconds" not in k} for r in t] for t in (rows, others)]
    return kept[0] == kept[1]


def unavailable(reason):
    def load(*arguments):
        raise Unavailable(reason)

    return load


def test_a_row_says_what_the_file_cost_and_what_came_back(run, tiny_codec, folder, tmp_path):
    rows, _ = run(("perco",), limit=1)
    assert [(r["photo"], r["codec"], r["rate"]) for r in rows] == [
        ("0.png", "perco", rate) for rate in RATES
    ]
    image = Image.open(folder / "0.png")
    files = [tiny_codec.compress(image, "two dogs", rate) for rate in RATES]
    decoded = tiny_codec.decompress(files, 2, seed=3)
    for row, data, picture in zip(rows, files, decoded, strict=True):
        parts = ledger(data)
        sizes = [row[f"{n}_bytes"] for n in ("header", "caption", "index")]
        assert list(map(int, sizes)) == [parts["header"], parts["caption"], parts["indices"]]
        assert int(row["bytes"]) == len(data) == sum(map(int, sizes))
        assert float(row["bpp"]) == pytest.approx(8 * len(data) / (72 * 48), rel=1e-5)
        assert float(row["psnr"]) == pytest.approx(psnr(image, picture), abs=1e-3)
        assert row["ms_ssim"] == "", "undefined for so small a photo"
        assert (row["width"], row["height"]) == ("72", "48")
        how = [row[n] for n in ("steps", "seed", "sampler", "model")]
        assert how == ["2", "3", "DDIMScheduler", f"{tiny_codec.model_id:#06x}"]
        assert float(row["encode_seconds"]) > 0 < float(row["decode_seconds"])
        kept = tmp_path / "out_pictures" / "perco" / row["rate"] / "0.png.png"
        assert np.abs(np.asarray(Image.open(kept)).astype(int) - np.asarray(picture)).max() <= 1


def test_other_weights_with_the_same_codebooks_are_refused(run, tiny_codec, monkeypatch):
    run(("perco",), limit=1)
    first = next(tiny_codec.unet.parameters())
    monkeypatch.setattr(first, "data", first.data + 1)
    with pytest.raises(ValueError, match="weights: was [0-9a-f]{16}, is [0-9a-f]{16}"):
        run(("perco",), limit=1)


def test_ceiling_and_estimate(run, tiny_codec, folder):
    rows, _ = run(("autoencoder", "perco-estimate"), limit=1)
    ceiling, *estimates = rows
    assert ceiling["rate"] == ceiling["bytes"] == ceiling["bpp"] == ceiling["steps"] == ""
    assert float(ceiling["psnr"]) > 5
    image = Image.open(folder / "0.png")
    for row in estimates:
        assert int(row["bytes"]) == len(tiny_codec.compress(image, "two dogs", row["rate"]))
        assert row["steps"] == "" and row["model"] == ceiling["model"] != ""
    assert estimates[0]["psnr"] != ceiling["psnr"]


@pytest.fixture
def paper_codec(tiny_stable_diffusion):
    """The paper's codec, whose condition estimates nothing, with its own guidance."""
    narrow = {"width": 8, "features": 16}
    codec = PercoCodec.from_stable_diffusion(tiny_stable_diffusion, RATES[:1], conditioner=narrow)
    codec.set_progress_bar_config(disable=True)
    assert (codec.config.guidance_scale, codec.config.temperature) == (3.0, 1.0)
    return codec


def test_an_estimate_that_does_not_exist_is_not_scored(run, paper_codec):
    codecs = ("perco", "perco-estimate", "autoencoder")
    rows, summary = run(codecs, codec=paper_codec, rates=RATES[:1], limit=1)
    assert [row["codec"] for row in rows] == ["perco", "autoencoder"]
    assert [result["codec"] for result in summary["results"]] == ["perco", "autoencoder"]
    reason = summary["codecs"]["perco-estimate"]
    assert "estimate nothing" in reason and f"not measured: perco-estimate ({reason})" in run.said
    with pytest.raises(ValueError, match="none of the codecs works here.*estimate nothing"):
        run(("perco-estimate",), "other.csv", codec=paper_codec, rates=RATES[:1])


def test_the_weights_own_settings_are_the_default(run, paper_codec, folder, tmp_path):
    options = {"codec": paper_codec, "rates": RATES[:1], "limit": 1}
    rows, summary = run(("perco",), decoding=Decoding(steps=2), **options)
    how = [rows[0][name] for name in ("steps", "guidance", "temperature", "anchor", "seed")]
    assert how == ["2", "3", "1", "1", "0"]
    assert (summary["decoding"]["guidance"], summary["decoding"]["temperature"]) == (3.0, 1.0)
    data = paper_codec.compress(Image.open(folder / "0.png"), "two dogs", RATES[0])
    expected = np.asarray(paper_codec.decompress(data, 2), float)
    picture = Image.open(tmp_path / "out_pictures" / "perco" / RATES[0] / "0.png.png")
    assert np.abs(np.asarray(picture, float) - expected).max() <= 1
    other = Decoding(steps=2, guidance=1.0, temperature=0.5)
    rows, _ = run(("perco",), "other.csv", decoding=other, **options)
    assert (rows[0]["guidance"], rows[0]["temperature"]) == ("1", "0.5")


def test_a_file_is_decoded_once_a_row(run, monkeypatch):
    unpacked = []
    for module in (codec_module, bitstream, ours):
        monkeypatch.setattr(module, "unpack", lambda *a: unpacked.append(a[0]) or unpack(*a))
    rows, _ = run(("perco", "perco-estimate"))
    assert len(rows) == 12 and len(unpacked) == 6


def test_classical_codecs_get_percos_bytes(run, folder, tiny_codec):
    rows, summary = run(("perco", "jpeg", "webp"), limit=1, ladder=(0.001, 20.0))
    target = {r["rate"]: r["bytes"] for r in rows if r["codec"] == "perco"}
    image = Image.open(folder / "0.png")
    for row in rows:
        if row["codec"] == "perco":
            assert row["target_bytes"] == row["reached"] == row["quality"] == ""
            continue
        if row["rate"] in target:
            assert row["target_bytes"] == target[row["rate"]]
        expected = encode_near(image, row["codec"], int(row["target_bytes"]))
        assert int(row["bytes"]) == len(expected.data)
        assert row["reached"] == str(expected.reached) and row["caption_bytes"] == ""
        assert float(row["psnr"]) == pytest.approx(psnr(image, expected.image), abs=1e-3)
    rungs = {r["rate"]: r["reached"] for r in rows if r["codec"] == "jpeg"}
    assert rungs == {"0.0019": "False", "0.0313": "False", "0.001bpp": "False", "20bpp": "True"}
    by_rate = {r["rate"]: r for r in summary["results"] if r["codec"] == "jpeg"}
    assert by_rate["20bpp"]["reached"] == 1 and by_rate["0.0019"]["reached"] == 0


def test_targets_are_files_as_the_prior_makes_them(run, folder, monkeypatch, tiny_codec):
    """Bytes depend on the photo where there is a prior; a table does not mix them with others."""
    real = type(tiny_codec).compress
    monkeypatch.setattr(type(tiny_codec), "compress", lambda *a, **k: real(*a, **k)[:-3])
    methods, _ = build_methods(("jpeg",), tiny_codec, RATES, (), DECODING)
    photo = open_dataset(str(folder)).photos[0]
    image = Image.open(folder / "0.png")
    (attempt,) = methods[0].run([(photo, image, [RATES[0]])])
    assert attempt.target_bytes == uniform_bytes(RATES[0], 72, 48, "two dogs") - 3
    monkeypatch.undo()
    run(("jpeg",))
    monkeypatch.setattr(evaluation, "WRITTEN_VERSION", 2)
    monkeypatch.setattr(evaluation, "find_prior", lambda model, rate: "a prior")
    monkeypatch.setattr(evaluation, "prior_table_id", lambda: 0xABCD)
    with pytest.raises(ValueError, match="file_format: was .*'none'}, is .*'0xabcd'"):
        run(("jpeg",))


def test_no_weights_are_needed_for_classical_codecs(folder, tmp_path):
    options = {"metrics": ("psnr",), "rates": RATES, "quiet": True, "say": print}
    evaluate(open_dataset(str(folder)), tmp_path / "o.csv", ("jpeg",), **options)
    assert {row["model"] for row in read_table(tmp_path / "o.csv")} == {""}
    with pytest.raises(ValueError, match="'perco' but no weights"):
        evaluate(open_dataset(str(folder)), tmp_path / "p.csv", ("perco",), **options)


def test_no_photo_is_encoded_twice_at_one_quality(run, monkeypatch):
    made, real = [], classical._ENCODERS["webp"]
    spy = lambda image, quality: made.append(quality) or real(image, quality)  # noqa: E731
    monkeypatch.setitem(classical._ENCODERS, "webp", spy)
    run(("webp",), limit=1, ladder=(1.0, 2.0, 4.0))
    assert len(made) == len(set(made)) > 3


def test_means_and_intervals(run):
    rows, summary = run()
    for result in summary["results"]:
        mine = [r for r in rows if (r["codec"], r["rate"]) == (result["codec"], result["rate"])]
        values = [float(r["psnr"]) for r in mine]
        assert result["photos"] == len(values) == 3
        assert result["psnr"]["mean"] == pytest.approx(np.mean(values))
        low, high = result["psnr"]["interval"]
        assert min(values) - 1e-6 <= low <= np.mean(values) <= high <= max(values) + 1e-6
        assert "ms_ssim" not in result
    assert summary["finished"] and summary["settings"]["metrics"]["psnr"].startswith("PSNR, dB")
    how = {"steps": 2, "guidance": 1.0, "temperature": 0.9, "anchor": 1.0, "seed": 3}
    assert summary["decoding"] == how | {"sampler": "paper"}
    assert {"torch", "pillow", "diffusers"} <= set(summary["versions"])
    assert summary["skipped"] == [] and summary["photos"] == 3


def test_codecs_are_compared_by_their_curves(run):
    pytest.importorskip("bjontegaard")
    _, summary = run(("jpeg", "webp"), ladder=(3.0, 5.0, 7.0))
    (entry,) = summary["bd"]
    assert (entry["codec"], entry["reference"], entry["metric"]) == ("webp", "jpeg", "psnr")
    assert math.isfinite(entry["bd_metric"])
    _, summary = run(("perco", "jpeg"), "two.csv")
    (entry,) = summary["bd"]
    assert entry["bd_rate_percent"] is None and entry["bd_rate_percent_missing"]


# --- going on, and refusing to ---


def test_rows_that_are_there_are_not_made_again(run, tmp_path, monkeypatch):
    full, _ = run(("perco", "autoencoder", "jpeg"), "full.csv")
    output = tmp_path / "out.csv"
    made, real = [], evaluation.ResultTable.append

    def crash(self, row):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(row)
        real(self, row)

    monkeypatch.setattr(evaluation.ResultTable, "append", crash)
    with pytest.raises(KeyboardInterrupt):
        run(("perco", "autoencoder", "jpeg"))
    before = list(ResultTable(output, full[0]).rows())
    assert len(before) == 4 and not json.loads((tmp_path / "out.json").read_text())["finished"]
    made = []
    spy = lambda table, row: made.append(row) or real(table, row)  # noqa: E731
    monkeypatch.setattr(evaluation.ResultTable, "append", spy)
    rows, summary = run(("perco", "autoencoder", "jpeg"))
    assert len(made) == len(full) - 4 and summary["finished"]
    assert not output.with_suffix(".sqlite").exists() and summary["wall_seconds"] > 0
    kept = [row for row in rows if row in before]
    assert kept == sorted(before, key=rows.index) and len(kept) == 4, "with their seconds"
    assert same(rows, full)
    again, _ = run(("perco", "autoencoder", "jpeg"))
    assert len(made) == len(full) - 4 and again == rows


def test_more_photos_rates_and_codecs_are_added(run):
    few, _ = run(("jpeg",), limit=1, rates=RATES[:1])
    rows, summary = run(("jpeg", "webp"))
    assert len(rows) == 12 and few[0] in rows
    assert [r["photo"] for r in rows] == sorted(r["photo"] for r in rows)
    fewer, summary = run(("webp",), limit=1)
    assert fewer == rows and len(summary["results"]) == 4, "the summary is of the whole table"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resize": "64x64"}, "resize: was own size, is squashed to 64x64"),
        ({"captions": {"1.png": "other"}}, "made with other settings.*captions: was"),
        ({"metrics": ("psnr",)}, "is another table.*unknown: 'ms_ssim'"),
        ({"decoding": Decoding(steps=3, seed=3)}, "perco rows with {'steps': '2'}"),
    ],
)
def test_other_settings_are_refused(run, tmp_path, change, words):
    run()
    before = (tmp_path / "out.csv").read_bytes(), (tmp_path / "out.json").read_bytes()
    if "captions" in change:
        (tmp_path / "c.json").write_text(json.dumps(change["captions"]))
        change = {"captions": tmp_path / "c.json"}
    with pytest.raises(ValueError, match=words):
        run(**change)
    assert before == ((tmp_path / "out.csv").read_bytes(), (tmp_path / "out.json").read_bytes())
    assert not (tmp_path / "out.sqlite").exists()


def test_a_table_of_an_earlier_release_is_gone_on_with(run, tmp_path):
    full, _ = run(("jpeg",))
    output = tmp_path / "out.csv"
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join(lines[:4]) + "1.png,72,4")  # a crash came within a row
    rows, _ = run(("jpeg",))
    assert rows[:3] == full[:3] and same(rows, full)


def test_what_is_anothers_is_refused(run, tmp_path):
    (tmp_path / "out.json").write_text('{"made_by": "hand"}')
    with pytest.raises(ValueError, match="out.json is not from perco evaluate; nothing was writ"):
        run()
    (tmp_path / "out.json").unlink()
    (tmp_path / "out_pictures").mkdir()
    (tmp_path / "out_pictures" / "holiday.png").touch()
    with pytest.raises(ValueError, match="out_pictures is not empty, and no out.json says"):
        run()
    (tmp_path / "out.sqlite").touch()
    with pytest.raises(ValueError, match="out.sqlite is there, and no out.json says"):
        run()
    with pytest.raises(ValueError, match="expected a name ending in .csv"):
        run(output="out.txt")
    assert not (tmp_path / "out.csv").exists()


# --- what cannot be done ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"codecs": ("gif",)}, "got codec 'gif', expected some of perco, "),
        ({"metrics": ("beauty",)}, "got metric 'beauty', expected some of psnr"),
        ({"rates": ("0.2",)}, "got rate '0.2'"),
        ({"ladder": (0.0,)}, "got 0 bpp on the ladder"),
        ({"ladder": (math.nan,)}, "on the ladder"),
        ({"batch": 0}, "got batch 0"),
    ],
)
def test_names_and_numbers_are_checked_first(run, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        run(**options)
    assert not (tmp_path / "out.csv").exists() and not (tmp_path / "out_pictures").exists()


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"guidance": math.inf}, {"anchor": 2.0}, {"seed": -1}]
)
def test_decoding_that_makes_no_sense(wrong):
    with pytest.raises(ValueError, match="expected"):
        Decoding(**wrong)


def test_unreadable_photos_are_named_and_left_out(run, folder):
    (folder / "bad.png").write_bytes(b"not a photo")
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])  # only decoding finds out
    rows, summary = run(("jpeg",))
    assert {row["photo"] for row in rows} == {"0.png", "2.png"}
    told = {one["photo"]: one["error"] for one in summary["skipped"]}
    assert "no image that Pillow knows" in told["bad.png"]
    assert "damaged or cut short" in told["1.png"]
    assert any(line.startswith("left out: bad.png") for line in run.said)
    for name in "012":
        (folder / f"{name}.png").write_bytes(b"no")
    with pytest.raises(ValueError, match="none of these photos can be read"):
        run(("jpeg",), "other.csv")


def test_missing_metrics_and_codecs_are_named_once_and_left_empty(run, monkeypatch):
    monkeypatch.setattr(scoring.metrics, "load_lpips", unavailable("LPIPS: no weights"))
    here = classical.available() | {"avif": False}
    monkeypatch.setattr(classical, "available", lambda: here)
    rows, summary = run(("jpeg", "avif"), metrics=("psnr", "lpips_vgg"))
    assert {row["lpips_vgg"] for row in rows} == {""} and {r["codec"] for r in rows} == {"jpeg"}
    assert summary["metrics"]["lpips_vgg"] == {"missing": "LPIPS: no weights"}
    assert summary["codecs"]["avif"].startswith("this Pillow has no avif")
    assert sum("lpips_vgg" in line for line in run.said) == 1
    with pytest.raises(ValueError, match="none of the codecs works here"):
        run(("avif",), "other.csv")


def test_programs_of_others_are_used_where_they_are_found(run, monkeypatch):
    monkeypatch.setattr(external, "why_not", lambda name: "" if name == "vtm" else f"no {name}enc")

    def imitate(image, codec, target_bytes, tried):
        result = encode_near(image, "jpeg", target_bytes, tried)
        return dataclasses.replace(result, codec=codec, decode_seconds=7.0)

    monkeypatch.setattr(external, "encode_near", imitate)
    rows, summary = run(("vtm", "bpg", "jpeg"))
    assert summary["codecs"] == {"vtm": "measured", "bpg": "no bpgenc", "jpeg": "measured"}
    assert "not measured: bpg (no bpgenc)" in run.said
    by_codec = {name: [r for r in rows if r["codec"] == name] for name in ("vtm", "jpeg", "bpg")}
    assert by_codec["bpg"] == [] and {r["decode_seconds"] for r in by_codec["vtm"]} == {"7"}
    sizes = [[r["bytes"] for r in by_codec[name]] for name in ("vtm", "jpeg")]
    assert sizes[0] == sizes[1] and len(sizes[0]) == 6


def test_learned_codecs_have_their_own_qualities(run, monkeypatch):
    def load(codec, quality):
        if quality > 3:
            raise ValueError("no such quality")
        if codec == "mbt2018":
            raise Unavailable("mbt2018: no weights")
        return lambda image: encode_near(image, "jpeg", 700 * quality)

    monkeypatch.setattr("perco_lite.evaluation.codecs.learned.load_learned", load)
    rows, summary = run(("hyperprior", "mbt2018"), limit=1)
    assert [row["rate"] for row in rows] == ["q1", "q2", "q3"]
    assert {row["target_bytes"] for row in rows} == {""}
    sizes = [int(row["bytes"]) for row in rows]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]
    assert summary["codecs"]["mbt2018"] == "mbt2018: no weights"


def test_one_photo_that_fails_does_not_stop_the_others(run, tiny_codec, monkeypatch):
    real = tiny_codec.compress

    def compress(image, *arguments):
        if image.size == (50, 70):
            raise MemoryError
        return real(image, *arguments)

    monkeypatch.setattr(tiny_codec, "compress", compress)
    rows, summary = run(("perco", "autoencoder", "jpeg"))
    assert {r["photo"] for r in rows if r["codec"] == "perco"} == {"0.png", "1.png"}
    assert "2.png" in {r["photo"] for r in rows if r["codec"] == "autoencoder"}
    assert [(s["photo"], s["codec"], s["rate"]) for s in summary["skipped"]] == [
        ("2.png", codec, rate) for codec in ("perco", "jpeg") for rate in RATES
    ], "and no jpeg where there are no bytes to compare with"
    assert "not enough memory" in summary["skipped"][0]["error"]


def test_a_group_that_fails_is_tried_one_by_one(tiny_codec, folder):
    photos = open_dataset(str(folder))
    perco = Perco(PercoFiles(tiny_codec), RATES[:1], DECODING)
    decode, sizes = perco._decode, []

    def fussy(files):
        sizes.append(len(files))
        if len(files) > 1:
            raise RuntimeError("out of memory")
        return decode(files)

    perco._decode = fussy
    jobs = [(photo, photos.load(photo), [RATES[0]]) for photo in photos.photos]
    attempts = list(perco.run(jobs))
    assert sizes == [2, 1, 1, 1] and all(attempt.error is None for attempt in attempts)


# --- sets ---


def test_set_metrics_come_from_the_pictures(run, tmp_path, folder, monkeypatch):
    seen = []

    def mean_colour(dataset):
        def see(photo):
            seen.append(photo.size)
            return np.asarray(photo, np.float64).mean((0, 1))

        def distance(a, b):
            gap = np.mean(list(a), 0) - np.mean(list(b), 0)
            return scoring.Score(float(np.abs(gap).sum()), "mean colour", (0.0, 1.0))

        return scoring.Family(lambda name, photo: see(photo), see, {"kid": distance})

    monkeypatch.setitem(scoring._FAMILIES, ("fid", "kid"), mean_colour)
    _, summary = run(("perco", "jpeg"), metrics=("psnr", "kid"))
    pairs = {"perco": [], "jpeg": []}
    for name in ("0.png", "1.png", "2.png"):
        for codec, found in pairs.items():
            picture = tmp_path / "out_pictures" / codec / "0.0019" / f"{name}.png"
            images = (Image.open(path) for path in (folder / name, picture))
            found.append([np.asarray(image, float).mean((0, 1)) for image in images])
    for result in (r for r in summary["results"] if r["rate"] == "0.0019"):
        original, other = np.mean(pairs[result["codec"]], 0)
        assert result["kid"]["value"] == pytest.approx(np.abs(original - other).sum())
        assert result["kid"]["interval"] == [0.0, 1.0]
    # a made-up photo, 3 originals, 2 x 3 of perco, and JPEG's smallest, which serve both rates
    assert len(seen) == 1 + 3 + 6 + 3
    (tmp_path / "out_pictures" / "perco" / "0.0019" / "1.png.png").unlink()
    _, summary = run(("perco", "jpeg"), metrics=("psnr", "kid"))
    by_key = {(r["codec"], r["rate"]): r for r in summary["results"]}
    assert "1 of 3 photos are not among" in by_key["perco", "0.0019"]["kid"]["missing"]
    assert "value" in by_key["perco", "0.0313"]["kid"]


def test_sets_that_were_scored_are_not_scored_again(run, tmp_path, monkeypatch):
    scored = []

    def size(dataset):
        see = lambda photo: np.asarray(photo.size, float)  # noqa: E731

        def distance(a, b):
            scored.append(len(list(a)))
            if len(scored) == 3:
                raise KeyboardInterrupt
            return scoring.Score(float(len(scored)), "made up", (0.0, 9.0))

        return scoring.Family(lambda name, photo: see(photo), see, {"kid": distance})

    monkeypatch.setitem(scoring._FAMILIES, ("fid", "kid"), size)
    with pytest.raises(KeyboardInterrupt):
        run(("perco", "perco-estimate"), metrics=("psnr", "kid"))
    assert (tmp_path / "out.sqlite").exists()
    _, summary = run(("perco", "perco-estimate"), metrics=("psnr", "kid"))
    assert len(scored) == 3 + 2, "of four sets, the two that had no score"
    values = [result["kid"]["value"] for result in summary["results"]]
    assert values == [1.0, 2.0, 4.0, 5.0] and summary["results"][0]["kid"]["interval"] == [0, 9]
    assert not (tmp_path / "out.sqlite").exists()


def test_without_pictures_no_set_is_scored(run, tmp_path):
    _, summary = run(("jpeg",), metrics=("psnr", "own_photo"), keep=False)
    assert summary["metrics"]["own_photo"] == {"missing": "the pictures are not kept"}
    assert not (tmp_path / "out_pictures").exists()


def test_rounds_of_the_closed_loop_are_a_setting(run, monkeypatch):
    asked, real = [], codec_module.refine
    monkeypatch.setattr(codec_module, "refine", lambda *a: asked.append(a[3]) or real(*a))
    _, summary = run(("perco",), "nearest.csv", limit=1, rates=RATES[:1], rounds=0)
    assert asked == [0] and summary["settings"]["closed_loop_rounds"] == 0
    _, summary = run(("perco",), limit=1, rates=RATES[:1])
    assert asked[1:] == [None], "as many as usual"
    assert "closed_loop_rounds" not in summary["settings"]
    with pytest.raises(ValueError, match="made with other settings"):
        run(("perco",), "nearest.csv", limit=1, rates=RATES[:1])


# --- nothing is missing in silence ---


def test_strict_refuses_before_anything_is_measured(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring.metrics, "load_lpips", unavailable("LPIPS: no weights"))
    here = classical.available() | {"avif": False}
    monkeypatch.setattr(classical, "available", lambda: here)
    (folder / "bad.png").write_bytes(b"not a photo")
    asked = {"codecs": ("jpeg", "avif"), "metrics": ("psnr", "lpips_vgg")}
    with pytest.raises(
        ValueError, match="2 things are missing, and nothing was measured"
    ) as caught:
        run(**asked, strict=True)
    for word in ("lpips_vgg (LPIPS: no weights)", "bad.png ("):
        assert word in str(caught.value)
    assert not list(tmp_path.glob("out*"))
    _, summary = run(**asked)
    assert "left out: 1 of 4 photos" in run.said and summary["finished"]
    (folder / "bad.png").unlink()
    _, summary = run(("jpeg",), "whole.csv", metrics=("psnr",), strict=True)
    assert summary["finished"]


def test_commits_that_took_part_are_told(run, monkeypatch):
    for commit in ("1" * 40, "2" * 40 + " and changes", None):
        monkeypatch.setattr(evaluation, "code_commit", lambda commit=commit: commit)
        _, summary = run(("jpeg",), limit=1)
    assert summary["commits"] == ["1" * 40, "2" * 40 + " and changes", "unknown"]


def test_the_command_is_told_by_its_own_name(run, monkeypatch):
    for program in ("/opt/lib/perco_lite/cli/__main__.py", "perco"):
        monkeypatch.setattr("sys.argv", [program, "evaluate", "my photos"])
        assert run(("jpeg",), limit=1)[1]["command"] == "perco evaluate 'my photos'"


@pytest.mark.parametrize(("device", "cpu"), [(None, True), ("cpu", True), ("cuda", False)])
def test_processes_without_a_gpu_know_of_each_other(device, cpu, monkeypatch):
    """Accelerate has to be told before weights are loaded; later it answers as it did first."""
    import accelerate

    asked = []
    monkeypatch.setattr(accelerate, "PartialState", lambda **how: asked.append(how["cpu"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    evaluation.processes(device)
    assert asked == [cpu]
