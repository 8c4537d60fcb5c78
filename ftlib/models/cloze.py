"""Cloze forms: a template around a row's texts with a gap in it, and the words for the gap that stand for labels.

The model is a plain language model, and stays one: plain transformers opens what is saved as AutoModelForMaskedLM or
AutoModelForCausalLM. Hooks put the template's tokens around the texts of encodings made by the base tokenizer, so that
every member shares one encoding of the rows, let the head run at the gap alone, and give in the place of a vocabulary's
logits one for each label: that of its word, of several words their mean. Rows that are too long for the model lose the
end of their longest text, never a part of the template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

from ftlib.errors import UnsupportedError, unknown
from ftlib.models.cloze_templates import Template, default_template

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

    from ftlib.problems.base import Problem


@dataclass(frozen=True, eq=False)
class ClozeForm:
    """A template, and what is read at its gap.

    Attributes:
        template: In the tokens of the model's tokenizer.
        verbalizer: The words of each label, in the order of the labels.
        words: Their tokens; several of one label are its words, or the pieces of one. None: the whole vocabulary.
        is_provisional: Whether these are only the labels' names, until better ones are searched.
    """

    template: Template
    verbalizer: Mapping[str, tuple[str, ...]]
    words: tuple[tuple[int, ...], ...] | None
    is_provisional: bool = False

    @classmethod
    def of(cls, template: Template, labels: Sequence[str], verbalizer: Mapping[str, Sequence[str]] | None) -> ClozeForm:
        """Return a form for a problem's labels.

        Args:
            template: In the tokens of the model's tokenizer.
            labels: In the order of their ids.
            verbalizer: Label -> words; None: the labels' own names, which are provisional unless each is one token.

        Raises:
            UnsupportedError: If a label has no word, or a word is not one token.
        """
        if verbalizer is None:
            return cls._of_names(template, labels)
        check_verbalizer(verbalizer, labels)
        given = {label: tuple(verbalizer[label]) for label in labels}
        words = tuple(tuple(_single(word, label, template) for word in given[label]) for label in labels)
        return cls(template, given, words)

    @classmethod
    def _of_names(cls, template: Template, labels: Sequence[str]) -> ClozeForm:
        names = {label: (label.replace("_", " "),) for label in labels}
        words = tuple(template.pieces(name) for (name,) in names.values())
        are_words = all(len(ids) == 1 and template.word(ids[0]) is not None for ids in words)
        return cls(template, names, words, is_provisional=not are_words or len(set(words)) < len(words))

    def dump(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"template": self.template.text, "verbalizer": {k: list(v) for k, v in self.verbalizer.items()}}


def check_verbalizer(verbalizer: Mapping[str, Sequence[str]], labels: Sequence[str]) -> None:
    """Refuse a verbalizer without a word for each label, or with one for a label that there is not.

    Raises:
        UnsupportedError: With the label.
    """
    for label in verbalizer:
        if label not in labels:
            raise UnsupportedError(f"cloze: verbalizer: {unknown('label', label, labels)}")
    for label in labels:
        if not verbalizer.get(label):
            raise UnsupportedError(
                f"cloze: verbalizer has no word for label {label!r}; give each label a word, or leave verbalizer out."
            )


def _single(word: str, label: str, template: Template) -> int:
    ids = template.pieces(word)
    if len(ids) == 1 and ids[0] != template.tokenizer.unk_token_id:
        return ids[0]
    pieces = ", ".join(map(repr, template.tokenizer.convert_ids_to_tokens(list(ids)))) or "nothing"
    raise UnsupportedError(
        f"cloze: word {word!r} of label {label!r} is not one token of the base model, but {pieces}; choose another "
        "word, or leave verbalizer out: words are then searched."
    )


def form_of(
    settings: Mapping[str, Any], problem: Problem, tokenizer: PreTrainedTokenizerBase, *, is_causal: bool
) -> ClozeForm:
    """Return the form that a checkpoint's or a strategy's settings speak of.

    Args:
        settings: "template" and "verbalizer", either of them left out or None where it is to be the default.
        problem: With its labels filled in.
        tokenizer: Without virtual tokens.
        is_causal: Whether the model reads from left to right.

    Raises:
        UnsupportedError: If the model, its tokenizer or the labels do not go with them.
    """
    text = settings.get("template") or default_template(problem.text_columns)
    template = Template.of(text, problem.text_columns, tokenizer, is_causal=is_causal)
    return ClozeForm.of(template, problem.target.labels, settings.get("verbalizer"))


# -- in the model ----------------------------------------------------------------------------------------


def attach(model: nn.Module, form: ClozeForm) -> None:
    """Make a language model fill the form with its inputs' texts, and give logits for labels.

    Its logits have shape (batch_size, num_labels) then. Replaces what was attached before. Virtual tokens are inserted
    after that, into the filled form.
    """
    from ftlib.models.layers import backbone

    detach(model)
    places: list[Any] = []

    def fill(module: nn.Module, arguments: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if arguments:
            inputs = {"input_ids": arguments[0], **inputs}
        filled, at = _filled(module, form.template, inputs)
        places[:] = [at]
        return (), filled

    def select(module: nn.Module, arguments: Any, output: Any) -> Any:
        if places:
            states = output["last_hidden_state"]
            output["last_hidden_state"] = states[range(len(states)), places[0]][:, None]
        return output

    def read(module: nn.Module, arguments: Any, output: ModelOutput) -> ModelOutput:
        places.clear()
        output["logits"] = _of_words(output["logits"][:, 0], form.words)
        return output

    model.cloze_form = form  # type: ignore[assignment]
    model.cloze_hooks = [  # type: ignore[assignment]
        model.register_forward_pre_hook(fill, with_kwargs=True, prepend=True),
        backbone(model).register_forward_hook(select),
        model.register_forward_hook(read),
    ]


def detach(model: nn.Module) -> None:
    """Undo `attach`, where it was called."""
    for hook in model.__dict__.pop("cloze_hooks", ()):
        hook.remove()
    model.__dict__.pop("cloze_form", None)


def attached(model: nn.Module) -> ClozeForm | None:
    """Return what `attach` was called with, or None."""
    return model.__dict__.get("cloze_form")


def _of_words(logits: Tensor, words: tuple[tuple[int, ...], ...] | None) -> Tensor:
    """Return the mean logit of each label's words, shape (batch_size, num_labels)."""
    import torch

    if words is None:
        return logits
    return torch.stack([logits[:, list(ids)].mean(-1) for ids in words], dim=-1)


def _filled(model: nn.Module, template: Template, inputs: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """Return inputs with the form filled, padded on the right, and each row's gap, as the backbone has its places."""
    import torch

    from ftlib.models.virtual_tokens import attached as virtual_tokens

    ids, virtual = inputs["input_ids"], virtual_tokens(model)
    room = _room(model, template.tokenizer) - (len(virtual.ids) if virtual else 0)
    rows, places = zip(*(template.fill(texts, room) for texts in _texts(template, inputs)), strict=True)
    longest = max(map(len, rows))
    padding = template.tokenizer.pad_token_id or 0
    new = torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows], device=ids.device)
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    mask = (torch.arange(longest, device=ids.device) < lengths[:, None]).long()
    at = torch.tensor(places, device=ids.device)
    if virtual:
        at = at + len(virtual.ids) * (at >= virtual.position)
    filled = {**inputs, "input_ids": new, "attention_mask": mask}
    if inputs.get("token_type_ids") is not None:
        filled["token_type_ids"] = torch.zeros_like(new)
    return filled, at


def _texts(template: Template, inputs: Mapping[str, Any]) -> Iterator[list[list[int]]]:
    """Yield the tokens of each row's texts."""
    ids = inputs["input_ids"].tolist()
    mask, types = (inputs.get(name) for name in ("attention_mask", "token_type_ids"))
    real = [[True] * len(row) for row in ids] if mask is None else mask.bool().tolist()
    kinds = [None] * len(ids) if types is None else types.tolist()
    for row, is_token, kind in zip(ids, real, kinds, strict=True):
        chosen = kind and list(compress(kind, is_token))
        yield template.frame.texts(list(compress(row, is_token)), chosen, len(template.spaced))


def _room(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the most tokens that the model reads."""
    from ftlib.models.layers import reserved_positions, unwrapped

    positions = getattr(unwrapped(model).config, "max_position_embeddings", None) or 1 << 30
    return min(positions - reserved_positions(model), tokenizer.model_max_length)
