"""Token ids to text, one at a time, at constant cost a token, never splitting a character.

The pieces of a stream, joined, equal `tokenizer.decode(all ids)`. Two kinds of tokenizer are known:
byte-level BPE (GPT-2, Qwen, Llama 3), where tokens are bytes, and pieces with byte fallback (Llama 2,
Mistral), where runs of `<0xNN>` tokens are one text. Any other decoder is run over a short window again
and again.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Protocol

from tokenizers import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TextStream(Protocol):
    """Decodes one sequence."""

    def push(self, token: int) -> str:
        """The text that this token completes; may be empty."""

    def finish(self) -> str:
        """What is left; incomplete characters become U+FFFD."""


class Vocabulary:
    """The text of single tokens, and how they join."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = tokenizer.get_added_tokens_decoder()
        self.special = frozenset(token for token, added in self._added.items() if added.special)
        self.rules = _rules(json.loads(tokenizer.to_str()).get("decoder"))
        self._bytes: dict[int, bytes] = {}

    @property
    def byte_level(self) -> bool:
        """Tokens are bytes."""
        return self.rules is not None and self.rules.byte_level

    def stream(self) -> TextStream:
        """A decoder for one sequence; special tokens give no text."""
        if self.rules is None:
            return WindowStream(self._tokenizer, self.special)
        if self.rules.byte_level:
            return ByteStream(self)
        return PieceStream(self, self.rules)

    def piece(self, token: int) -> str | None:
        """The token as the vocabulary writes it; None: no such id."""
        return self._tokenizer.id_to_token(token)

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token stands for, special tokens by their name; empty for unknown ids."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._make_bytes(token)
        return known

    def name(self, token: int) -> str:
        """A token for people: its text, or `bytes:` and hex escapes where its bytes are no text."""
        data = self.bytes_of(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def _make_bytes(self, token: int) -> bytes:
        piece = self.piece(token)
        if piece is None:
            return b""
        if self.rules is not None and self.rules.byte_level:
            return byte_level_bytes(piece)  # added tokens too, as the library does
        if self.rules is None or token in self._added:
            return piece.encode()
        if self.rules.byte_fallback and (match := _BYTE_TOKEN.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        return self.rules.replaced(piece).encode()


class _Rules:
    """A decoder's description, reduced to what streaming needs."""

    def __init__(self) -> None:
        self.byte_level = False
        self.byte_fallback = False
        self.replacements: list[tuple[str, str]] = []
        self.strip = ""  # at most so many of this character are cut from the start of the text
        self.strip_count = 0
        self.first_drops = ""  # removed from the first token wherever it stands (Metaspace)

    def replaced(self, piece: str) -> str:
        """A piece with its space marks as spaces."""
        for old, new in self.replacements:
            piece = piece.replace(old, new)
        return piece


def _rules(decoder: dict[str, Any] | None) -> _Rules | None:
    """None: a decoder that cannot be reduced."""
    if decoder is None:
        return None
    rules = _Rules()
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    fused = decoder["type"] != "Sequence"
    for step in steps:
        match step["type"]:
            case "ByteLevel" if len(steps) == 1:
                rules.byte_level = True
            case "Replace" if "String" in step["pattern"] and not fused:
                rules.replacements.append((step["pattern"]["String"], step["content"]))
            case "ByteFallback" if not fused:
                rules.byte_fallback = True
            case "Fuse":
                fused = True
            case "Strip" if fused and not step["stop"]:
                rules.strip, rules.strip_count = step["content"], step["start"]
            case "Metaspace" if len(steps) == 1:
                rules.replacements.append((step["replacement"], " "))
                rules.first_drops = "" if step["prepend_scheme"] == "never" else step["replacement"]
            case _:
                return None
    return rules if fused else None


def _unicode_to_byte() -> dict[str, int]:
    """The printable characters that byte-level BPE writes for the 256 bytes (as GPT-2 chose them)."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in kept}
    moved = [byte for byte in range(256) if byte not in kept]
    return table | {chr(256 + i): byte for i, byte in enumerate(moved)}


_BYTE_OF = _unicode_to_byte()


def byte_level_bytes(piece: str) -> bytes:
    """Bytes of a byte-level piece; a piece with other characters stands for itself."""
    try:
        return bytes([_BYTE_OF[char] for char in piece])
    except KeyError:
        return piece.encode()


class ByteStream:
    """Byte-level BPE: tokens are bytes, UTF-8 is decoded as it comes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """See TextStream."""
        if token in self._vocabulary.special:
            return ""
        return self._decoder.decode(self._vocabulary.bytes_of(token))

    def finish(self) -> str:
        """See TextStream."""
        return self._decoder.decode(b"", final=True)


class PieceStream:
    """Pieces with byte fallback: a run of byte tokens is one text, or U+FFFD for each if it is none."""

    def __init__(self, vocabulary: Vocabulary, rules: _Rules) -> None:
        self._vocabulary = vocabulary
        self._rules = rules
        self._run = bytearray()
        self._first = True
        self._to_strip = rules.strip_count

    def push(self, token: int) -> str:
        """See TextStream."""
        piece = self._vocabulary.piece(token)
        if token in self._vocabulary.special or piece is None:
            return ""
        first, self._first = self._first, False
        if self._rules.byte_fallback and (match := _BYTE_TOKEN.fullmatch(piece)):
            self._run.append(int(match[1], 16))
            return ""
        if first and self._rules.first_drops:
            piece = piece.replace(self._rules.first_drops, "")
        return self._stripped(self._end_of_run() + self._rules.replaced(piece))

    def finish(self) -> str:
        """See TextStream."""
        return self._stripped(self._end_of_run())

    def _end_of_run(self) -> str:
        run, self._run = bytes(self._run), bytearray()
        try:
            return run.decode()
        except UnicodeDecodeError:
            return REPLACEMENT * len(run)

    def _stripped(self, text: str) -> str:
        """Cut the first characters of the whole text, at most `strip_count` of them."""
        while self._to_strip and text:
            if text[0] != self._rules.strip:
                self._to_strip = 0
            else:
                text, self._to_strip = text[1:], self._to_strip - 1
        return text


class WindowStream:
    """Any decoder: decode the newest tokens again and again, with those before them as context."""

    def __init__(self, tokenizer: Tokenizer, special: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._context: list[int] = []
        self._fresh: list[int] = []

    def push(self, token: int) -> str:
        """See TextStream."""
        if token in self._special:
            return ""
        self._fresh.append(token)
        text = self._text()
        if not text or text.endswith(REPLACEMENT):
            return ""
        self._context, self._fresh = self._fresh, []
        return text

    def finish(self) -> str:
        """See TextStream."""
        return self._text() if self._fresh else ""

    def _text(self) -> str:
        before = self._tokenizer.decode(self._context)
        return self._tokenizer.decode([*self._context, *self._fresh])[len(before) :]
