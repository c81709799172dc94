"""Prompts to token numbers: CLIP's byte-pair encoding, as the text tower was trained on it.

A vocabulary is a directory in the form that `transformers.CLIPTokenizer` opens too: `vocab.json`,
`merges.txt` and `tokenizer_config.json`. `convert_clip_vocabulary` writes CLIP's own from the file
that the release ships; `train_tokenizer` learns a small one from captions. Nothing here reaches
for the network.
"""

import gzip
import hashlib
import html
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ftfy
import numpy as np
from jaxtyping import Int32
from tokenizers import Tokenizer as Backend
from tokenizers import models, trainers

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
CLIP_MERGES = 48_894  # the file holds more; CLIP's 49,408 tokens come from the first ones
LENGTH = 77


def clean(text: str) -> str:
    """Mends broken unicode, resolves HTML entities, folds white space and lowers the case.

    Source: released `basic_clean` and `whitespace_clean`.
    """
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


class Tokenizer:
    """Turns prompts into rows of token numbers of one length.

    Source: released `CLIPTokenizer` with `padding='eos'`, whose numbers it gives for all text but
    these oddities: a start or end token spelt out right behind punctuation (special here, split
    there), the Greek U+0345 on its own (dropped there), a long s right behind an apostrophe, and
    characters whose class differs between two versions of Unicode.

    Attributes:
        length: tokens in a row, start and end token included.
        vocab_size: number of token numbers.
        end_token: the number that ends and pads a row.
    """

    def __init__(self, clip: "CLIPTokenizer"):
        self.length = int(clip.model_max_length)
        vocabulary = clip.get_vocab()
        self.vocab_size = len(vocabulary)
        self.end_token = vocabulary[END]
        self._start_token = vocabulary[START]
        self._backend: Backend = clip.backend_tokenizer
        # `clean` has done this step as the release does it. The one built in also composes
        # characters anew, which changes the tokens of what an HTML entity has just spelt apart.
        self._backend.normalizer = None
        self._backend.no_truncation()
        self._backend.no_padding()

    @classmethod
    def from_directory(cls, directory: str | os.PathLike[str]) -> "Tokenizer":
        """Opens a vocabulary that this module or `transformers` wrote.

        Raises:
            ValueError: the directory holds no CLIP vocabulary, or does not say how many tokens a
                prompt has.
        """
        directory = Path(directory)
        files = {path.name for path in directory.glob("*")}
        if not {"vocab.json", "merges.txt"} <= files and "tokenizer.json" not in files:
            raise ValueError(
                f"{directory} holds no vocab.json and merges.txt: write them there with "
                "convert_clip_vocabulary or train_tokenizer."
            )
        try:
            clip = _clip_tokenizer().from_pretrained(str(directory), local_files_only=True)
            missing = {START, END} - _model(clip.backend_tokenizer)["vocab"].keys()
            if missing:
                raise ValueError(f"it lacks {' and '.join(sorted(missing))}")
        except Exception as error:  # the backend raises nothing narrower
            raise ValueError(
                f"{directory} holds no CLIP vocabulary ({error}): write it anew with "
                "convert_clip_vocabulary or train_tokenizer."
            ) from error
        if not 3 <= clip.model_max_length <= 1_000_000:  # absent, transformers makes it 1e30
            raise ValueError(
                f"{directory}/tokenizer_config.json names no usable length: set "
                f'"model_max_length" to the tokens of a prompt, for CLIP {LENGTH}.'
            )
        return cls(clip)

    def __call__(self, texts: Sequence[str]) -> Int32[np.ndarray, "n {self.length}"]:
        """Tokens of some prompts: start, text cut to `length - 2`, end, and the end as padding."""
        if isinstance(texts, str):
            raise TypeError(f"expected a list of prompts, got one string: pass [{texts!r}].")
        rows = np.full((len(texts), self.length), self.end_token, np.int32)
        rows[:, 0] = self._start_token
        for row, text in zip(rows, texts, strict=True):
            tokens = self._backend.encode(clean(text), add_special_tokens=False).ids
            tokens = tokens[: self.length - 2]
            row[1 : 1 + len(tokens)] = tokens
        return rows

    @property
    def sha256(self) -> str:
        """Hash of vocabulary and length: where it is the same, prompts have the same tokens."""
        model = _model(self._backend)
        described = json.dumps([model["vocab"], model["merges"], self.length], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes the vocabulary for `from_directory`, creating the directory."""
        model = _model(self._backend)
        _write(Path(directory), model["vocab"], model["merges"], self.length)


def convert_clip_vocabulary(
    source: str | os.PathLike[str], out_dir: str | os.PathLike[str], length: int = LENGTH
) -> Tokenizer:
    """Writes CLIP's vocabulary as a directory, from the file `bpe_simple_vocab_16e6.txt.gz`.

    Args:
        source: that file; it ships with OpenAI's CLIP and with FlashFace's release.
        out_dir: directory to write, created when absent.
        length: tokens of a prompt; CLIP's position embedding has 77.

    Returns:
        The tokenizer, opened from `out_dir`.

    Raises:
        ValueError: the file is missing or not that vocabulary.
    """
    try:
        text = gzip.decompress(Path(source).read_bytes()).decode("utf-8")
        merges = [_pair(line) for line in text.rstrip().split("\n")[1 : 1 + CLIP_MERGES]]
        if len(merges) < CLIP_MERGES:
            raise ValueError(f"it holds {len(merges)} of {CLIP_MERGES} merges")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(
            f"{source} is not CLIP's vocabulary ({error}): pass bpe_simple_vocab_16e6.txt.gz as "
            "it ships with OpenAI's CLIP or FlashFace."
        ) from error
    _write(Path(out_dir), _vocabulary(merges), merges, length)
    return Tokenizer.from_directory(out_dir)


def write_clip_vocabulary(tokenizer: Tokenizer, target: Path) -> None:
    """Writes a vocabulary in the form that the release ships: inverse of the conversion.

    The file has the merges that number the tokens. CLIP's own has more behind them, which no
    reader uses.

    Args:
        tokenizer: the vocabulary.
        target: the file to write, gzipped.

    Raises:
        ValueError: the release would read other numbers from it.
    """
    model = _model(tokenizer._backend)
    merges = model["merges"]
    tokens = [*_symbols(), *("".join(pair) for pair in merges), START, END]
    numbered = {token: number for number, token in enumerate(tokens)}
    if len(merges) > CLIP_MERGES or numbered != model["vocab"]:
        raise ValueError("the release would give this vocabulary's tokens other numbers.")
    # No line end behind the last merge, which the release would take for one more.
    text = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
    target.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))


def train_tokenizer(
    captions: Iterable[str], out_dir: str | os.PathLike[str], length: int, vocab_size: int
) -> Tokenizer:
    """Learns a vocabulary of CLIP's form from captions; the same captions give the same one.

    Args:
        captions: the texts to learn from.
        out_dir: directory to write, created when absent.
        length: tokens of a prompt, start and end token included.
        vocab_size: number of tokens to reach, at least 514: any text can be spelt in 512 byte
            symbols, and two tokens are special. Captions with fewer words give fewer tokens.

    Returns:
        The tokenizer, opened from `out_dir`; its `vocab_size` is the number reached.

    Raises:
        ValueError: `vocab_size` or `length` is too small.
    """
    symbols = _symbols()
    if vocab_size < len(symbols) + 2:
        raise ValueError(f"vocab_size {vocab_size} is too small: pass {len(symbols) + 2} or more.")
    backend = Backend(models.BPE(end_of_word_suffix=END_OF_WORD))
    backend.pre_tokenizer = _clip_tokenizer()().backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        # Numbered up front: ties between merges fall to the lower number, and the trainer numbers
        # end-of-word symbols that it meets in an order that changes from run to run.
        special_tokens=symbols,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    backend.train_from_iterator((clean(caption) for caption in captions), trainer)
    merges = _model(backend)["merges"]
    _write(Path(out_dir), _vocabulary(merges), merges, length)
    return Tokenizer.from_directory(out_dir)


def _clip_tokenizer() -> "type[CLIPTokenizer]":
    """The class that opens vocabularies.

    Imported only where one is opened: processes that are sent a tokenizer do without it, which
    saves each of them a second and 40 MB.
    """
    # Without PyTorch, which only the converters need, transformers would say at every start that
    # no models can be used; none of its models is wanted here.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import CLIPTokenizer  # noqa: PLC0415

    return CLIPTokenizer


def _pair(line: str) -> tuple[str, str]:
    """The two symbols that a line of a merges file joins."""
    try:
        left, right = line.split()
    except ValueError as error:
        raise ValueError(f"{line[:40]!r} is no merge of two symbols") from error
    return left, right


def _symbols() -> list[str]:
    """The 512 tokens before any merge: every byte within a word, and every byte that ends one.

    A printable byte of Latin-1 stands for itself and comes first, the rest are numbered from 256.
    Source: byte-level encoding of GPT-2 and CLIP, released `bytes_to_unicode`.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = [chr(code) for code in (*printable, *range(256, 512 - len(printable)))]
    return symbols + [symbol + END_OF_WORD for symbol in symbols]


def _vocabulary(merges: Sequence[Sequence[str]]) -> dict[str, int]:
    """Numbers the byte symbols, what the merges make, and last the start and end token."""
    tokens = dict.fromkeys([*_symbols(), *("".join(pair) for pair in merges), START, END])
    return {token: number for number, token in enumerate(tokens)}


def _model(backend: Backend) -> dict:
    """Vocabulary and merges of a tokenizer backend, which gives them out as JSON only."""
    return json.loads(backend.to_str())["model"]


def _write(
    directory: Path, vocabulary: dict[str, int], merges: Sequence[Sequence[str]], length: int
) -> None:
    """Writes the three files of a vocabulary."""
    if length < 3:
        raise ValueError(f"length {length} leaves no token for text: pass 3 or more.")
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": length,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
    }
    files = {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8", newline="\n")
