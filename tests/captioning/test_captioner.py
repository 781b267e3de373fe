"""The captioner: its decoder, its search, its files, and where the bundled one is, its captions."""

import itertools
import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import make_photo
from perco_lite.captioning import Captioner
from perco_lite.captioning.captioner import BUNDLED, CONFIG, FILE, search, tidy
from perco_lite.coding.caption_model import bundled
from perco_lite.data import skimage_photos

bundled_only = pytest.mark.skipif(
    not (BUNDLED / FILE).is_file(), reason="no captioner in the package"
)


@pytest.fixture
def features():
    return torch.rand(3, 49, 1280, generator=torch.Generator().manual_seed(1)) * 6


def test_word_by_word_is_as_all_at_once(captioner, features):
    decoder = captioner.decoder
    photos = decoder.look(features)
    symbols = torch.randint(0, 8, (6, 5), generator=torch.Generator().manual_seed(0))
    whole, _ = decoder(photos, symbols)
    steps, before = [], None
    for i in range(5):
        step, before = decoder(photos, symbols[:, i : i + 1], before)
        steps.append(step)
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-5)
    later = symbols.clone()
    later[:, 3:] = 0
    assert torch.allclose(decoder(photos, later)[0][:, :3], whole[:, :3], atol=1e-5)


def test_captions_of_one_photo_are_neighbours(captioner, features):
    decoder = captioner.decoder
    symbols = torch.randint(0, 8, (6, 4), generator=torch.Generator().manual_seed(0))
    together, _ = decoder(decoder.look(features), symbols)
    alone, _ = decoder(decoder.look(features[1:2]), symbols[2:4])
    other, _ = decoder(decoder.look(features[2:3]), symbols[2:4])
    assert torch.allclose(together[2:4], alone, atol=1e-5)
    assert not torch.allclose(together[2:4], other, atol=1e-3)


def log_share(decoder, features, words) -> float:
    """Mean log-probability of a word of a sentence that has its end, all computed at once."""
    symbols = torch.tensor([[0, *words]])
    scores = decoder.score(decoder(decoder.look(features), symbols[:, :-1])[0])
    scores[..., 1] = scores[:, 0, 0] = -torch.inf
    shares = scores.log_softmax(-1).gather(2, symbols[:, 1:, None])
    return shares.mean().item()


@torch.no_grad()
def test_wide_search_finds_the_best_of_all_short_sentences(captioner, features):
    decoder = captioner.decoder
    decoder.longest = 3
    decoder.bias.data[0] = 1.5  # ends are likely
    inner = [p for n in (1, 2) for p in itertools.product(range(2, 8), repeat=n)]
    found = search(decoder, features, beams=60)
    for number, words in enumerate(found):
        one = features[number : number + 1]
        best = max(((*p, 0) for p in inner), key=lambda p: log_share(decoder, one, p))
        assert (*words, 0) == best, "cut short are those of three words and more"


def test_greedy_takes_the_likeliest_word_each_time(captioner, features):
    (words,) = search(captioner.decoder, features[:1], 1)
    photos, said = captioner.decoder.look(features[:1]), [0]
    for _ in range(captioner.decoder.longest):
        following, _ = captioner.decoder(photos, torch.tensor([said]))
        scores = captioner.decoder.score(following[0, -1])
        scores[[0, 1] if len(said) == 1 else 1] = -torch.inf
        said.append(int(scores.argmax()))
        if said[-1] == 0:
            break
    assert words == [s for s in said if s]


def test_a_photo_s_sentence_does_not_depend_on_its_company(captioner):
    photos = [make_photo(seed=n) for n in range(4)]
    together = captioner.describe(photos)
    assert together == [captioner(photo) for photo in photos]
    assert captioner.describe([]) == []
    with pytest.raises(ValueError, match="got 0 beams"):
        captioner(photos[0], beams=0)


def test_words_to_symbols_and_back(captioner):
    assert captioner.symbols("A dog's cat runs.") == [2, 3, 7, 1, 4]
    assert captioner.sentence([2, 3, 7, 1, 4, 0]) == "A dog's runs."
    assert captioner.sentence([]) == ""


def test_loose_words_are_put_together():
    assert tidy(" a dog 's  ball , red .") == "a dog's ball, red."
    assert tidy("the dogs ' bed and 'roll' calls") == "the dogs' bed and 'roll' calls"


def test_a_folder_keeps_it(captioner, tmp_path):
    captioner.save_pretrained(tmp_path / "c")
    again = Captioner.from_pretrained(tmp_path / "c")
    photos = [make_photo(seed=n) for n in range(3)]
    assert again.words == captioner.words and again.decoder.config == captioner.decoder.config
    again.save_pretrained(tmp_path / "d")
    assert (tmp_path / "c" / FILE).read_bytes() == (tmp_path / "d" / FILE).read_bytes()
    assert Captioner.from_pretrained(tmp_path / "d").describe(photos) == again.describe(photos)
    tensors = load_file(tmp_path / "c" / FILE)
    assert tensors["eyes.stem.weight"].dtype == torch.int8
    assert tensors["decoder.words.weight"].dtype == torch.float16


def test_missing_and_damaged_files_say_so(captioner, tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json is missing.*perco train captioner"):
        Captioner.from_pretrained(tmp_path)
    captioner.save_pretrained(tmp_path)
    whole, config = (tmp_path / FILE).read_bytes(), (tmp_path / CONFIG).read_text()

    def refused(pattern):
        with pytest.raises(ValueError, match=f"captioner in .* is damaged .*{pattern}"):
            Captioner.from_pretrained(tmp_path)

    (tmp_path / FILE).write_bytes(whole[:-9])
    refused("")
    tensors = load_file(save_whole(tmp_path, whole))
    save_file({n: v for n, v in tensors.items() if n != "decoder.bias"}, tmp_path / FILE)
    refused("bias")
    (tmp_path / FILE).write_bytes(whole)
    for text in ("{", "[]", '{"decoder": {"vocabulary": "x"}, "words": []}', '{"words": []}'):
        (tmp_path / CONFIG).write_text(text)
        refused("")
    fewer = json.loads(config) | {"words": [" a"]}
    (tmp_path / CONFIG).write_text(json.dumps(fewer))
    refused("1 words, expected 6")


def save_whole(folder, data):
    (folder / FILE).write_bytes(data)
    return folder / FILE


@bundled_only
def test_the_bundled_one_is_small_and_quick():
    size = sum(file.stat().st_size for file in BUNDLED.iterdir())
    assert size <= 10 * 2**20, f"{size / 2**20:.1f} MiB"
    start = time.process_time()
    captioner = Captioner.from_pretrained()
    assert time.process_time() - start < 2, "seconds; half a second where nothing else runs"
    photo = skimage_photos()[1].image
    captioner(photo)
    start = time.process_time()
    captioner(photo)
    assert time.process_time() - start < 2, "seconds; a tenth where nothing else runs"


@bundled_only
def test_what_the_bundled_one_writes_is_cheap_to_code():
    captioner = Captioner.from_pretrained()
    assert set(captioner.words) <= set(bundled().words)
    photos = skimage_photos()
    lines = captioner.describe([photo.image for photo in photos])
    assert len(set(lines)) > 1 and all(line[0].isupper() and line[-1] == "." for line in lines)
    for line in lines:
        assert bundled().decode(bundled().encode(line)) == line
        assert len(bundled().encode(line)) <= 16, line
