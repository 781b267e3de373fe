"""The figures of RQ1 to RQ5, from made-up tables: what is drawn, and what is named instead."""

import csv
import json
import re
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from perco_lite.evaluation.codecs.controls import CONTROLS, OTHER_TEXTURE
from perco_lite.evaluation.results import load_results

RATES = {"0.0019": 70, "0.0098": 300, "0.0313": 1100, "0.1250": 4400}  # bytes
FIGURES = {  # the worst there is, the best, whether more is better
    "psnr": (13, 30, True),
    "ms_ssim": (0.3, 0.98, True),
    "lpips_alex": (0.8, 0.05, False),
    "lpips_vgg": (0.8, 0.1, False),
    "dists": (0.5, 0.03, False),
    "fid_256": (180, 15, False),
    "kid_256": (0.12, 0.001, False),
    "kid_512": (0.1, 0.001, False),
    "fid": (150, 10, False),
    "kid": (0.1, 0.001, False),
    "miou": (0.05, 0.9, True),
    "miou_masks": (0.05, 0.62, True),
    "pattern": (4, 0.1, False),
    "own_photo": (0.02, 1, True),
    "same_class": (0.05, 0.9, True),
}
SETS = {"fid_256", "kid_256", "kid_512", "fid", "kid", "miou", "miou_masks", "own_photo"}
SETS |= {"same_class", "pattern"}
PHOTOS = 12


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("figures")


def goodness(codec: str, rate: str) -> float:
    """0 to 1; another for each codec and rate, better for more bytes."""
    luck = crc32(codec.encode()) % 100 / 1000
    step = [*RATES].index(rate) if rate in RATES else 3
    at = {"perco": 0.5, "autoencoder": 0.95}.get(codec, 0.35 if codec in CONTROLS else 0.42)
    return min(at + luck + 0.11 * step * (codec != "autoencoder"), 1)


def write_table(folder, name: str, experiment) -> None:
    """A finished table as `perco evaluate` leaves it, of figures that nobody measured."""
    codecs = [*experiment.codecs, *(CONTROLS if "--controls" in experiment.more else ())]
    rates = experiment.rates.split(",") if experiment.rates else [*RATES]
    rows, results = [], []
    for codec in codecs:
        own = codec in ("autoencoder", *CONTROLS) and codec != OTHER_TEXTURE
        unsent = own or codec == OTHER_TEXTURE or "grid" in codec or "quantizer" in codec
        for rate in [""] if own else rates:
            about = {"codec": codec, "rate": rate, "photos": PHOTOS}
            luck = np.random.default_rng(crc32(f"{name}{codec}{rate}".encode())).normal(size=PHOTOS)
            sizes = [] if unsent else (RATES[rate] * (1 + 0.1 * luck)).round().astype(int)
            if len(sizes):
                about["bpp"] = {"mean": float(np.mean(sizes)) * 8 / 393216}
            for metric in experiment.metrics:
                worst, best, _ = FIGURES[metric]
                value = worst + (best - worst) * goodness(codec, rate)
                ends = [value - 0.05 * abs(best - worst), value + 0.05 * abs(best - worst)]
                about[metric] = {"value" if metric in SETS else "mean": value, "interval": ends}
            results.append(about)
            for number in range(PHOTOS):
                row = {"photo": f"{number}.png", "codec": codec, "rate": rate}
                if len(sizes):
                    parts = {"bytes": sizes[number], "header_bytes": 10, "caption_bytes": 22}
                    row |= parts | {"index_bytes": sizes[number] - 32}
                rows.append(
                    row | {m: about[m]["mean"] for m in experiment.metrics if m not in SETS}
                )
    names = list(dict.fromkeys(column for row in rows for column in row))
    with (folder / f"{name}.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    settings = {"dataset": experiment.dataset, "weights": "0123456789abcdef"}
    summary = {
        "made_by": "perco evaluate",
        "finished": True,
        "command": "made up",
        "photos": PHOTOS,
    }
    summary |= {"settings": settings, "commits": ["f" * 40], "results": results}
    (folder / f"{name}.json").write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def tables(tmp_path_factory, load_script):
    folder = tmp_path_factory.mktemp("tables")
    made = load_script("experiments")
    for experiment in made.EXPERIMENTS:
        write_table(folder, experiment.name, experiment)
    for rate in ("0.0019", "0.0313"):
        one = made.Experiment(f"alone_{rate}", "kodak", ("perco",), rates=rate)
        write_table(folder, one.name, one)
    return folder


def test_every_figure_is_drawn(script, tables, tmp_path, capsys):
    assert script.main(["--tables", str(tables), "-o", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err == "" and len(said.out.splitlines()) == len(script.FIGURES) == 12
    for name in script.FIGURES:
        image = Image.open(tmp_path / f"{name}.png")
        assert min(image.size) > 300, name
        ink = (np.asarray(image.convert("L")) < 200).mean()
        assert 0.005 < ink < 0.7, name


def test_a_missing_table_is_named_with_its_command(script, tables, tmp_path, capsys, load_script):
    folder = tmp_path / "some"
    folder.mkdir()
    for suffix in (".csv", ".json"):
        (folder / f"guidance{suffix}").write_bytes((tables / f"guidance{suffix}").read_bytes())
    out = ["--tables", str(folder), "-o", str(tmp_path / "drawn")]
    assert script.main(out) == 0
    said = capsys.readouterr()
    assert [p.name for p in (tmp_path / "drawn").iterdir()] == ["guidance.png"]
    assert len(said.err.splitlines()) == len(script.FIGURES) - 1
    assert re.search(r"not drawn: captions .*python scripts/measure.py --only captions", said.err)
    assert "perco evaluate kodak --weights FOLDER --rates 0.0019" in load_script(
        "experiments"
    ).command_of("alone_0.0019")
    assert script.main([*out, "--only", "seeds"]) == 1


@pytest.fixture
def drawn(script, tables):
    """A figure by name, not yet closed."""
    figures = []

    def draw(name):
        figures.append(script.FIGURES[name](script.Tables(tables)))
        return figures[-1]

    yield draw
    for figure in figures:
        script.plt.close(figure)


def test_curves_are_the_tables_figures(script, drawn, tables):
    results = load_results("rates", tables)
    left = drawn("rates").axes[0]
    line = next(c for c in left.containers if c.get_label() == "perco_lite").lines[0]
    points = results.curve("perco", "psnr")
    assert line.get_xdata().tolist() == [p.bpp for p in points]
    assert line.get_ydata().tolist() == [p.value for p in points]


def test_others_figures_stand_apart(script, drawn):
    figure = drawn("published")
    left, right = figure.axes[:2]
    titles = [axes.get_title() + axes.get_title("left") for axes in (left, right)]
    assert "measured here" in titles[0] and "published by others" in titles[1]
    assert right.get_facecolor() != left.get_facecolor()
    labels = [line.get_label() for line in right.get_lines()]
    assert labels == [f"{name} (published)" for name in script.PUBLISHED]
    for line in right.get_lines():
        assert line.get_linestyle() == "--" and line.get_markerfacecolor() == "none"
    assert sum(len(line.get_xdata()) for line in right.get_lines()) > 20
    assert not [c for c in left.containers if "published" in str(c.get_label())]


def test_a_line_of_others_has_one_protocol(script):
    for metric in ("LPIPS", "FID"):
        kept = script.one_protocol(script.published_points("kodak", metric))
        for method in script.PUBLISHED:
            assert len({(p.dataset, p.metric) for p in kept if p.method == method}) <= 1


def test_bars_add_up_to_the_files(script, drawn, tables):
    results = load_results("rates", tables)
    for axes, rate in zip(drawn("bits").axes, RATES, strict=True):
        mean = np.mean([*results.values("perco", rate, "bytes").values()])
        top = max(p.get_y() + p.get_height() for p in axes.patches)
        title = axes.get_title() + axes.get_title("left")
        assert top == pytest.approx(mean) and f"{mean:,.0f} bytes" in title


def test_settings_are_in_their_place(script, drawn, tables):
    axes = drawn("guidance").axes[0]
    line = next(c for c in axes.containers if c.get_label() == "0.0019 bpp").lines[0]
    assert line.get_xdata().tolist() == [1, 2, 3, 5, 7]
    results = load_results("guidance", tables)
    at = results.at("perco+steps=20+guidance=5", "0.0019", "psnr")
    assert line.get_ydata()[3] == at.value
    # what has no bytes is drawn rate by rate, too
    axes = drawn("bottleneck").axes[0]
    line = next(c for c in axes.containers if c.get_label() == "not quantized").lines[0]
    assert len(set(line.get_ydata())) == 4


def test_a_figure_says_what_it_is_of(script, tables):
    held = script.Tables(tables)
    held.get("seeds")
    expected = f"seeds.csv: {PHOTOS} photos of kodak, weights 01234567, commit ffffffffff"
    assert held.source() == expected
