"""Ends a text after so many `sentences`."""

import json
from typing import Optional

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.stopping import Stop
from wit_world.imports.types import Fault, ModelInfo

BAD_CONFIG = 1

sentences = 0


class Stopping(exports.Stopping):
    def open(self, model: ModelInfo, config: str) -> None:
        global sentences
        values = json.loads(config)
        unknown = set(values) - {"sentences"}
        sentences = values.get("sentences", 1)
        if unknown or type(sentences) is not int or sentences < 1:
            raise Err(Fault(BAD_CONFIG, f"only `sentences` is known, a whole number from 1; got {config}"))


class Session:
    def __init__(self) -> None:
        self.ended = 0

    def observe(self, tokens: list[int], text: str, ends: list[int]) -> Optional[Stop]:
        """Token `i` completed `text[ends[i - 1]:ends[i]]`, in bytes."""
        written, start = text.encode(), 0
        for i, end in enumerate(ends):
            self.ended += sum(written[start:end].count(mark) for mark in (b".", b"!", b"?"))
            start = end
            if self.ended >= sentences:
                return Stop(i + 1, f"{self.ended} sentences")
        return None

    def fork(self) -> "Session":
        # A copy made by `copy` would share what ties this one to its handle.
        other = Session()
        other.ended = self.ended
        return other
