"""JSON read value by value as it comes, so that a list of a million files is never held as text."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

PIECE: Final = 64 * 1024
LONGEST: Final = 1024 * 1024
"""Characters of one value: rclone's entry of the longest path there is has less than a tenth."""


def _no(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


_AFTER: Final = ",]}: \t\r\n"
_DECODER: Final = json.JSONDecoder(parse_constant=_no)


class Flow:
    """One JSON text from a source of bytes. Everything raises ValueError, which says why.

    `read(n)` returns at most n bytes, none at the end; `most`: bytes of the whole text.
    """

    def __init__(self, read: Callable[[int], bytes], most: int) -> None:
        self._read, self._most, self._left = read, most, most
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogatepass").decode
        self._text, self._at = "", 0

    def elements(self) -> Iterator[Any]:
        """Yield the elements of a list that begins here."""
        self._expect("[")
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self._expect(",]") == "]":
                return

    def members(self) -> Iterator[str]:
        """Yield the keys of an object that begins here; its caller reads each one's value."""
        self._expect("{")
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                raise ValueError("a key is missing")
            yield str(self.value())
            if self._expect(",}") == "}":
                return

    def key(self) -> None:
        """Pass over what stands between a key and its value."""
        self._expect(":")

    def value(self) -> Any:
        """Return the value that begins here, which does not end the text."""
        self._peek()
        while True:
            end = len(self._text)
            try:
                found, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                raise ValueError("it is nested too deeply") from None
            except ValueError:
                found = None
            # "-1" and "-1." may be half of a number: something has to follow that ends it.
            if end < len(self._text) and self._text[end] in _AFTER:
                self._at = end
                return found
            if len(self._text) - self._at > LONGEST:
                raise ValueError(f"none of its values ends within {LONGEST} characters")
            if not self._more():
                raise ValueError("it is cut, or no JSON")

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self._peek():
            raise ValueError("more follows its end")

    def _expect(self, characters: str) -> str:
        found = self._peek()
        if not found:
            raise ValueError("it is cut")
        if found not in characters:
            raise ValueError("it is no JSON of the form expected")
        self._at += 1
        return found

    def _peek(self) -> str:
        """Return the next character that is no space, "" at the end."""
        while True:
            while self._at < len(self._text):
                found = self._text[self._at]
                if found not in " \t\r\n":
                    return found
                self._at += 1
            if not self._more():
                return ""

    def _more(self) -> bool:
        piece = self._read(PIECE)
        self._left -= len(piece)
        if self._left < 0:
            raise ValueError(f"it is longer than {self._most} bytes")
        self._text = self._text[self._at :] + self._decode(piece, final=not piece)
        self._at = 0
        return bool(piece)
