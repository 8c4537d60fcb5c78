"""Conversations: reading them, checking whose turn it is, and laying them out by a tokenizer's own template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlib.errors import CheckpointError

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")
Message = dict[str, str]

PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
"""A conversation that every template can lay out."""


# -- reading -------------------------------------------------------------------------------------------


def read_conversations(column: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return conversations as list<struct<role, content>>, null where there is none, and why (null: fine).

    Args:
        column: Lists of objects with role and content, or JSON text of such.
    """
    import pyarrow as pa

    found = [_conversation(value) for value in column.to_pylist()]
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    return pa.array([messages for messages, _ in found], kind), pa.array([why for _, why in found], pa.string())


def _conversation(value: Any) -> tuple[list[Message] | None, str | None]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None, "messages are no JSON list"
    if value is None:
        return None, "empty messages"
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return None, "messages are not a list of objects with role and content"
    messages = [{"role": item.get("role"), "content": item.get("content")} for item in value]
    reason = _out_of_turn(messages)
    return (None, reason) if reason else (messages, None)


def _out_of_turn(messages: Sequence[dict[str, Any]]) -> str | None:
    """Return why a conversation cannot be used: a system's word may come first, then user and assistant take turns."""
    for number, message in enumerate(messages, 1):
        if message["role"] not in ROLES:
            return f"unknown role {message['role']!r} in message {number}"
        if not isinstance(message["content"], str) or not message["content"].strip():
            return f"empty message {number}"
    turns = [message["role"] for message in messages]
    start = 1 if turns[:1] == ["system"] else 0
    for number, role in enumerate(turns[start:]):
        wanted = ROLES[1 + number % 2]
        if role != wanted:
            return f"out of turn: message {start + number + 1} is the {role}'s, expected the {wanted}'s"
    return None if len(turns) > start else "no user's message"


def before_answer(messages: list[Message]) -> list[Message]:
    """Return a conversation up to where the assistant is to answer: without its last word, if that is its last."""
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


# -- laying out ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turns:
    """A conversation as tokens.

    Attributes:
        ids: The tokens.
        is_answer: Which of them the assistant says, its end-of-turn token among them.
    """

    ids: list[int]
    is_answer: list[bool]


def check_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> None:
    """Refuse a tokenizer whose template is missing, or does not say where an answer begins.

    Raises:
        CheckpointError: With what to do.
    """
    if not (template or tokenizer.chat_template):
        raise CheckpointError(
            "dialogue needs a tokenizer with a chat template, and the base model's has none; choose a chat model, or "
            "give a Jinja template as problem.template."
        )
    try:
        laid_out = lay_out(tokenizer, list(PROBE), template)
    except CheckpointError:
        raise
    except Exception as error:  # Jinja runs what the template says, so anything can go wrong
        line = f"dialogue: the chat template cannot be used ({error}); give problem.template."
        raise CheckpointError(line) from error
    if not any(laid_out.is_answer):
        raise CheckpointError("dialogue: the chat template leaves the assistant's messages out; give problem.template.")


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message], template: str | None) -> list[int]:
    """Return a conversation's tokens up to where the assistant is to answer."""
    text = _render(tokenizer, messages, template, ask=True)
    return tokenizer.encode(text, add_special_tokens=False, verbose=False)


def lay_out(tokenizer: PreTrainedTokenizerBase, messages: list[Message], template: str | None) -> Turns:
    """Return a conversation's tokens, and which the assistant says.

    A template that marks answers ({% generation %}) says so itself. Of any other, an answer is what follows the
    prompt that the template makes of all messages before it, up to the end-of-turn token.

    Raises:
        CheckpointError: If the template marks no answers and lays a message out otherwise than when others follow it.
    """
    if "generation %}" in (template or tokenizer.chat_template or "").replace("-%}", "%}"):
        found: Any = tokenizer.apply_chat_template(
            messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
        return Turns(list(found["input_ids"]), [bool(value) for value in found["assistant_masks"]])
    text = _render(tokenizer, messages, template, ask=False)
    spans = _answer_spans(tokenizer, messages, template, text)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    places = encoded["offset_mapping"]
    return Turns(list(encoded["input_ids"]), [any(s <= a < b <= e for s, e in spans) for a, b in places])


def _answer_spans(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], template: str | None, text: str
) -> list[tuple[int, int]]:
    spans = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _render(tokenizer, messages[:number], template, ask=True)
        through = _render(tokenizer, messages[: number + 1], template, ask=False).rstrip()
        if not (text.startswith(through) and through.startswith(before)):
            raise CheckpointError(
                "dialogue: the chat template lays a message out otherwise when others follow it, so that answers "
                "cannot be told from the rest; give problem.template with {% generation %} marks around answers."
            )
        spans.append((len(before), len(through)))
    return spans


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], template: str | None, *, ask: bool) -> str:
    return str(
        tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=ask)
    )


def end_tokens(tokenizer: PreTrainedTokenizerBase, template: str | None) -> list[int]:
    """Return the tokens after which an answer is over: the template's end-of-turn token, and the end of text."""
    found = lay_out(tokenizer, list(PROBE), template)
    last = next((i for i, answer in zip(reversed(found.ids), reversed(found.is_answer), strict=True) if answer), None)
    ends = [tokenizer.eos_token_id, last if last in tokenizer.all_special_ids or _is_added(tokenizer, last) else None]
    return sorted({token for token in ends if token is not None})


def _is_added(tokenizer: PreTrainedTokenizerBase, token: int | None) -> bool:
    return token in tokenizer.added_tokens_decoder


def fitted(messages: list[Message], fits: Any) -> list[Message]:
    """Return a conversation without its oldest exchanges, as many as must go for it to fit; the system's word stays.

    Args:
        messages: Up to where the assistant is to answer.
        fits: Whether a conversation does.
    """
    start = 1 if messages[0]["role"] == "system" else 0
    while len(messages) > start + 2 and not fits(messages):
        messages = [*messages[:start], *messages[start + 2 :]]
    return messages
