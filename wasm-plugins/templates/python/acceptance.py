"""Keeps draft tokens that are among the target's `rank` + 1 best, besides those that are its own draw. Lossy: the answer
says how many tokens were not the target's own."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.acceptance import Window
from wit_world.imports.types import Fault, ModelInfo

BAD_CONFIG = 1

rank = 0


class Acceptance(exports.Acceptance):
    def open(self, model: ModelInfo, config: str) -> None:
        global rank
        values = json.loads(config)
        unknown = set(values) - {"rank"}
        rank = values.get("rank", 1)
        if unknown or type(rank) is not int or not 0 <= rank < model.vocab_size:
            raise Err(Fault(BAD_CONFIG, f"only `rank` is known, a whole number below {model.vocab_size}; got {config}"))


class Session:
    """State, if there is any, moves in `commit` alone: `judge` may be called again, or its answer thrown away."""

    def judge(self, window: Window) -> int:
        for i, (draft, own) in enumerate(zip(window.draft, window.own_draw)):
            if draft != own and window.rank[i] > rank:
                return i
        return len(window.draft)

    def commit(self, tokens: list[int]) -> None:
        pass

    def fork(self) -> "Session":
        return Session()
