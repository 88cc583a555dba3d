"""Makes a token that was just drawn less likely to be drawn again: `penalty` is taken from its logit, for the `last` tokens
of the text."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import rows
from wit_world.imports.types import Fault, ModelInfo

BAD_CONFIG = 1

last, penalty = 0, 0.0


class Sampling(exports.Sampling):
    def open(self, model: ModelInfo, config: str) -> None:
        global last, penalty
        values = json.loads(config)
        unknown = set(values) - {"last", "penalty"}
        last, penalty = values.get("last", 8), values.get("penalty", 1.0)
        fits = type(last) is int and 1 <= last <= 64 and type(penalty) in (int, float) and 0 <= penalty <= 100
        if unknown or not fits:
            raise Err(Fault(BAD_CONFIG, f"only `last` (1 to 64) and `penalty` (0 to 100) are known; got {config}"))


class Session:
    """State moves in `commit` alone; row `i` may depend on the committed text and the draft tokens before it alone."""

    def __init__(self) -> None:
        self.text: list[int] = []

    def adjust(self, draft: list[int], first: int) -> None:
        for row in range(first, len(draft) + 1):
            recent = sorted(set((self.text + draft[:row])[-last:]))
            rows.bias(row, recent, [-penalty] * len(recent))

    def commit(self, tokens: list[int]) -> None:
        self.text = (self.text + tokens)[-last:]

    def fork(self) -> "Session":
        # A copy made by `copy` would share what ties this one to its handle.
        other = Session()
        other.text = list(self.text)
        return other
