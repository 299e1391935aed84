"""Incremental decoding equals decoding at once; stop strings are never shown, not even in part."""

from __future__ import annotations

import json

import pytest
from checkpoints import write_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from dualpath_gateway.text.detokenize import REPLACEMENT, Vocabulary, WindowStream
from dualpath_gateway.text.stops import StopFinder

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
SAMPLES = ("caf\u00e9 \u4f60\u597d", "\U0001f600\U0001f468\u200d\U0001f469", "a b\n\tc", "\ufffd x")


def byte_level(tmp_path_factory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("bytes")
    write_tokenizer(directory, add_bos=False)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_tokens(["\u00e9\u00e9", "two words"])
    return tokenizer


def pieces(decoder: object) -> Tokenizer:
    """Like Llama 2: 256 byte tokens, words with a space mark, special tokens."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [SPACE, f"{SPACE}the", "the", f"{SPACE}{SPACE}", "caf\u00e9", "\u4f60", f"a{SPACE}b", "!"]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words[:3]])
    tokenizer.decoder = decoder
    return tokenizer


def llama() -> object:
    return decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[str, Tokenizer]:
    return {
        "byte level": byte_level(tmp_path_factory),
        "llama": pieces(llama()),
        "no strip": pieces(
            decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
        ),
        "metaspace": pieces(decoders.Metaspace(SPACE, "always")),
        "metaspace never": pieces(decoders.Metaspace(SPACE, "never")),
    }


@pytest.mark.parametrize("kind", ["byte level", "llama", "no strip", "metaspace", "metaspace never"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_increments_joined_are_the_whole_text(tokenizers, kind, data):
    tokenizer = tokenizers[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=40))
    stream = Vocabulary(tokenizer).stream()
    assert not isinstance(stream, WindowStream)
    text = "".join([*(stream.push(token) for token in ids), stream.finish()])
    assert text == tokenizer.decode(ids)


@pytest.mark.parametrize("sample", SAMPLES)
def test_characters_are_never_split(tokenizers, sample):
    tokenizer = tokenizers["byte level"]
    stream = Vocabulary(tokenizer).stream()
    shown = [stream.push(token) for token in tokenizer.encode(sample).ids]
    assert "".join(shown) == sample
    assert all(REPLACEMENT not in piece for piece in shown) or REPLACEMENT in sample


def test_an_unknown_decoder_is_run_over_a_window(tokenizers):
    tokenizer = Tokenizer.from_str(tokenizers["llama"].to_str())
    tokenizer.decoder = decoders.WordPiece()
    vocabulary = Vocabulary(tokenizer)
    assert isinstance(vocabulary.stream(), WindowStream)
    ids = [262, 262, 266, 262]
    stream = vocabulary.stream()
    assert "".join([*(stream.push(token) for token in ids), stream.finish()]) == tokenizer.decode(ids)


def test_tokens_have_bytes_and_names(tokenizers):
    vocabulary = Vocabulary(tokenizers["llama"])
    assert vocabulary.bytes_of(3 + 0xE4) == b"\xe4"
    assert vocabulary.name(3 + 0xE4) == "bytes:\\xe4"
    assert vocabulary.bytes_of(260) == b" the"
    assert vocabulary.name(1) == "<s>"
    assert vocabulary.bytes_of(10**6) == b""
    tokenizer = tokenizers["byte level"]
    assert Vocabulary(tokenizer).bytes_of(tokenizer.encode(" ").ids[0]) == b" "
    json.dumps(vocabulary.name(5))


texts = st.text(alphabet="ab\u00e9", max_size=30)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(texts, max_size=8), st.lists(st.text(alphabet="ab\u00e9", min_size=1, max_size=4), max_size=4)
)
def test_text_is_shown_up_to_the_first_stop_string(parts, stops):
    finder, shown, found = StopFinder(stops), "", False
    for part in parts:
        text, found = finder.push(part)
        shown += text
        if found:
            break
        whole = shown + finder._held
        assert not any(stop in whole for stop in stops)
    if not found:
        shown += finder.finish()
    whole = "".join(parts)
    assert whole.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if not found:
        assert shown == whole
    else:
        assert any(whole[len(shown) :].startswith(stop) for stop in stops)


@settings(max_examples=200, deadline=None)
@given(texts, st.lists(st.text(alphabet="ab\u00e9", min_size=1, max_size=4), min_size=1, max_size=4))
def test_it_does_not_matter_how_the_text_is_cut(text, stops):
    def shown(parts: list[str]) -> str:
        finder, out = StopFinder(stops), ""
        for part in parts:
            piece, found = finder.push(part)
            out += piece
            if found:
                return out
        return out + finder.finish()

    whole = shown([text])
    by_character = shown(list(text))
    # cut finer, an earlier-ending stop string can win over an earlier-starting one; both are cut at a stop
    assert whole.startswith(by_character) or by_character.startswith(whole)
