"""Sample data that the project makes itself: conversations of customers with a web shop's assistant.

For trying dialogue with no file at hand, with a small model that learns from scratch: what the assistant says follows
from what the customer said. Some rows are damaged as exported chats are: duplicates, no answer at the end, somebody
out of turn, an empty message, an unknown role. Not for judging a method.

Column: messages.

    {"messages": [{"role": "user", "content": "Is my lamp here?"}, {"role": "assistant", "content": "Yes."}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from pydantic import Field

from ftlib.data.sources import _samples, _shop
from ftlib.data.sources.base import Source

if TYPE_CHECKING:
    import pyarrow as pa

Message = dict[str, str]
SYSTEM = "You help the customers of a web shop."


class SampleDialogues(Source):
    """Made-up conversations."""

    num_rows: int = Field(2000, ge=10, le=5_000_000)
    """How many rows, damaged ones included."""

    seed: int = Field(0, ge=0)
    """Equal seeds give equal rows."""

    most_exchanges: int = Field(3, ge=1, le=20)
    """The most that a customer says in a conversation."""

    system_ratio: float = Field(0.3, ge=0, le=1)
    """Share of conversations that begin with a system's word."""

    duplicate_ratio: float = Field(0.02, ge=0, le=0.5)
    """Share of rows that are an exact copy of an earlier one."""

    damaged_ratio: float = Field(0.04, ge=0, le=0.5)
    """Share of rows that cannot be learned from: unanswered, out of turn, empty, of an unknown role, or missing."""

    def fingerprint(self) -> str:
        """Return a digest of the parameters and of the code that writes the rows."""
        return _samples.fingerprint(self, _shop)

    def columns(self) -> list[str]:
        """Return messages."""
        return ["messages"]

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Write the rows."""
        import pyarrow as pa

        random = Random(self.seed)
        rows = _samples.with_copies(
            random, self.num_rows, self.duplicate_ratio, lambda _: (self._conversation(random),)
        )
        messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        return _samples.table(self, columns, rows, {"messages": messages})

    def _conversation(self, random: Random) -> list[Message] | None:
        messages = [_message("system", SYSTEM)] if random.random() < self.system_ratio else []
        for _ in range(random.randint(1, self.most_exchanges)):
            said, answer = _shop.exchange(random)
            messages += [_message("user", said), _message("assistant", answer)]
        return _damaged(random, messages) if random.random() < self.damaged_ratio else messages


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _damaged(random: Random, messages: list[Message]) -> list[Message] | None:
    kind = random.randrange(5)
    last = messages[-1]
    if kind == 0:
        return messages[:-1]
    if kind == 1:
        return [*messages, _message("assistant", "Anything else?")]
    if kind == 2:
        return [*messages[:-1], {**last, "content": " "}]
    if kind == 3:
        return [*messages[:-1], {**last, "role": "bot"}]
    return None
