"""Tokens against the released tokenizer's, and the three ways to get a vocabulary."""

import gzip
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPTokenizer

from flashface_jax.weights.tokenizer import (
    Tokenizer,
    clean,
    convert_clip_vocabulary,
    train_tokenizer,
)

RECORDING = Path(__file__).parents[1] / "recordings" / "preprocess.npz"
REPOSITORY = Path(__file__).parents[2]
CLIP_FILE = REPOSITORY.parent / "shared" / "golden" / "bpe_simple_vocab_16e6.txt.gz"
CAPTIONS = [
    f"A {age} {sex} with {hair} hair, wearing {item}"
    for age in ("young", "old")
    for sex in ("man", "woman")
    for hair in ("brown", "red", "grey")
    for item in ("a hat", "glasses", "headphones")
]


@pytest.fixture(scope="module")
def clip_directory(tmp_path_factory):
    if not CLIP_FILE.exists():
        pytest.skip(f"{CLIP_FILE.name} (1.3 MB, CLIP's vocabulary) does not lie beside the project")
    directory = tmp_path_factory.mktemp("clip")
    convert_clip_vocabulary(CLIP_FILE, directory)
    return directory


@pytest.fixture(scope="module")
def recorded():
    with np.load(RECORDING) as file:
        return file["prompts/text"].tolist(), file["prompts/tokens"]


@pytest.fixture
def small(tmp_path):
    return train_tokenizer(CAPTIONS, tmp_path / "small", length=16, vocab_size=600)


def text_tokens(tokenizer, text):
    """The tokens between the start and the first end token."""
    row = tokenizer([text])[0].tolist()
    return row[1 : row.index(tokenizer.end_token)]


def test_clip_tokens_equal_the_recorded_ones(clip_directory, recorded):
    texts, expected = recorded
    tokenizer = Tokenizer.from_directory(clip_directory)
    assert (tokenizer.length, tokenizer.vocab_size, tokenizer.end_token) == (77, 49408, 49407)
    tokens = tokenizer(texts)
    assert tokens.dtype == np.int32
    wrong = int((tokens != expected).sum())
    assert wrong == 0, f"{wrong} of {expected.size} tokens differ"


# Text on which tokenizers differ most, with the numbers that the released one gives.
ODD_TEXTS = {
    "&lt;b&gt; e&#x301; <": [283, 321, 285, 324, 136, 479, 283],
    "naÃ¯ve â€™s": [1097, 35689, 563, 568],
    "日本 👩🏽\u200d🦰\u200b": [39121, 19277, 361, 18800, 8514, 4244, 6040, 108, 9844],
    "İ ΟΔΟΣ ﬁ": [328, 16384, 138, 123, 138, 112, 138, 123, 139, 480, 3589],
    "a <|endoftext|> b": [320, 49407, 321],
}


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_text_gives_the_released_numbers(clip_directory, text):
    tokens = Tokenizer.from_directory(clip_directory)([text])[0, 1:]
    expected = ODD_TEXTS[text]
    assert tokens[: len(expected)].tolist() == expected
    assert (tokens[len(expected) :] == 49407).all()


def test_plain_transformers_opens_the_same_directory(clip_directory, recorded):
    texts, expected = recorded
    plain = CLIPTokenizer.from_pretrained(str(clip_directory), local_files_only=True)
    tokens = plain(texts, truncation=True, padding="max_length")["input_ids"]
    np.testing.assert_array_equal(tokens, expected)


def test_save_and_load_give_the_same_tokens(small, tmp_path):
    small.save(tmp_path / "copy")
    copy = Tokenizer.from_directory(tmp_path / "copy")
    np.testing.assert_array_equal(copy(CAPTIONS), small(CAPTIONS))
    assert (copy.length, copy.vocab_size) == (small.length, small.vocab_size)
    for path in (tmp_path / "small").iterdir():
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_pickled_tokenizer_gives_the_same_tokens(small):
    copy = pickle.loads(pickle.dumps(small))
    np.testing.assert_array_equal(copy(CAPTIONS), small(CAPTIONS))


def test_rows_are_start_text_end_and_padding(small):
    tokens = small(["man", ""])
    start, end = small.vocab_size - 2, small.vocab_size - 1
    assert small.end_token == end
    assert tokens.shape == (2, 16)
    assert tokens[0, 0] == start and tokens[0, 1] < start and (tokens[0, 2:] == end).all()
    assert tokens[1, 0] == start and (tokens[1, 1:] == end).all()
    assert small([]).shape == (0, 16)


def test_long_text_is_cut_and_still_ends(small):
    tokens = small(["hat " * 100])[0]
    (hat,) = text_tokens(small, "hat")
    assert tokens[1:15].tolist() == [hat] * 14
    assert tokens[15] == small.end_token


def test_any_unicode_is_spelt_in_bytes(small):
    tokens = text_tokens(small, "ж")
    assert len(tokens) == 2 and max(tokens) < 512, f"two bytes of UTF-8, got {tokens}"
    assert text_tokens(small, "ж") != text_tokens(small, "з")
    assert small(["\U0010ffff\ud7ff\x00 𐍈"]).max() <= small.end_token


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  A\t Man\n", "a man"),
        ("< it&amp;#39;s", "< it's"),
        ("naÃ¯ve", "naïve"),
        ("“Red”\u3000HAT", '"red" hat'),
        ("", ""),
    ],
)
def test_cleaning(small, text, cleaned):
    assert clean(text) == cleaned
    np.testing.assert_array_equal(small([text]), small([cleaned]))


def test_one_string_is_refused(small):
    with pytest.raises(TypeError, match=r"got one string: pass \['a man'\]"):
        small("a man")


TRAIN = """
import sys
from flashface_jax.weights.tokenizer import train_tokenizer
train_tokenizer(sys.stdin.read().splitlines(), sys.argv[1], 16, 600)
"""


def test_training_is_the_same_in_every_process_and_order(tmp_path):
    """The trainer's hash maps are seeded anew in each process; random words make many ties."""
    letters = np.random.default_rng(0).choice(list("abcdefgh"), (400, 4))
    words = ["".join(word) for word in letters]
    train_tokenizer(words, tmp_path / "here", length=16, vocab_size=600)
    for i in range(2):
        subprocess.run(
            [sys.executable, "-c", TRAIN, str(tmp_path / str(i))],
            input="\n".join(words[::-1]),
            text=True,
            check=True,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        for name in ("vocab.json", "merges.txt"):
            trained = (tmp_path / str(i) / name).read_bytes()
            assert trained == (tmp_path / "here" / name).read_bytes(), name


def test_training_learns_whole_words_and_keeps_to_the_size(small, tmp_path):
    assert len(text_tokens(small, CAPTIONS[0])) == 10  # nine words and a comma
    assert small.vocab_size < 600, "so few words offer fewer merges than asked for"
    few = train_tokenizer(CAPTIONS, tmp_path / "few", length=16, vocab_size=530)
    assert few.vocab_size == 530
    assert len(text_tokens(few, CAPTIONS[0])) > 10


def test_transformers_opens_a_trained_vocabulary(small, tmp_path):
    plain = CLIPTokenizer.from_pretrained(str(tmp_path / "small"), local_files_only=True)
    tokens = plain(CAPTIONS, truncation=True, padding="max_length")["input_ids"]
    np.testing.assert_array_equal(tokens, small(CAPTIONS))


def test_nothing_is_printed_or_warned(tmp_path):
    """Training, opening and encoding in a process of their own stay silent."""
    script = TRAIN + (
        "from flashface_jax.weights.tokenizer import Tokenizer\n"
        "Tokenizer.from_directory(sys.argv[1])(['hat ' * 1000])\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "default", "-c", script, str(tmp_path / "out")],
        input="a man with a hat",
        text=True,
        capture_output=True,
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert result.stdout + result.stderr == ""


def zipped(content):
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not gzip", "Not a gzipped file"),
        (zipped(b"header\na b\n" * 5000)[:-20], "ended before"),
        (zipped(b"header\na b\nc d\n"), "it holds 2 of 48894 merges"),
        (zipped(b"header\none two three\n"), "'one two three' is no merge of two symbols"),
        (zipped(b"\xff\xfe"), "can't decode"),
    ],
    ids=["not zipped", "cut short", "too few", "three symbols", "no text"],
)
def test_a_file_that_is_not_the_vocabulary_is_named(tmp_path, content, reason):
    path = tmp_path / "words.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"pass bpe_simple_vocab_16e6\.txt\.gz") as error:
        convert_clip_vocabulary(path, tmp_path / "out")
    assert str(path) in str(error.value) and reason in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.gz is not CLIP's vocabulary .*No such file"):
        convert_clip_vocabulary(tmp_path / "absent.gz", tmp_path / "out")


def test_too_small_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="vocab_size 513 is too small: pass 514 or more"):
        train_tokenizer(CAPTIONS, tmp_path, length=16, vocab_size=513)
    with pytest.raises(ValueError, match="length 2 leaves no token for text: pass 3 or more"):
        train_tokenizer(CAPTIONS, tmp_path, length=2, vocab_size=514)


def test_a_directory_without_vocabulary_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no vocab.json and merges.txt: write them"):
        Tokenizer.from_directory(tmp_path / "nowhere")


def test_a_damaged_vocabulary_is_named(small, tmp_path):
    vocabulary = tmp_path / "small" / "vocab.json"
    tokens = json.loads(vocabulary.read_text(encoding="utf-8"))
    del tokens["<|endoftext|>"]
    vocabulary.write_text(json.dumps(tokens), encoding="utf-8")
    with pytest.raises(ValueError, match=r"it lacks <\|endoftext\|>\): write it anew"):
        Tokenizer.from_directory(tmp_path / "small")
    vocabulary.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds no CLIP vocabulary .*: write it anew"):
        Tokenizer.from_directory(tmp_path / "small")


def test_a_vocabulary_without_length_is_named(small, tmp_path):
    config = tmp_path / "small" / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    del settings["model_max_length"]
    config.write_text(json.dumps(settings))
    with pytest.raises(
        ValueError, match=r'tokenizer_config\.json names no usable length: set "mod'
    ):
        Tokenizer.from_directory(tmp_path / "small")
