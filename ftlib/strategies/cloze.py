"""Cloze (pattern-exploiting): the pretrained language model itself answers, with a word in a gap beside the text.

"The app crashes. It was [MASK]." asks a masked language model for a word, and each label has a word that stands for it:
its logit at the gap is the label's. A causal model goes on with the template up to the gap. No head is drawn at random,
so with a few dozen rows a label it is ahead of full fine-tuning, most where labels can be put into words and a template
reads like the texts of pretraining; with `train: false` it answers with no training at all. With thousands of rows the
two are equal. Wordings matter: try some, or let the words be searched. It wants the rates of full fine-tuning.

It starts from a base model that was published with its language model's head, such as bert-base-uncased, roberta-base
or gpt2; sentence encoders have lost theirs. Or it starts from a stage that has learned to predict the words of raw
texts (`continued_pretraining`), which a sentence encoder can, too. What is saved is such a model, which plain
transformers opens as AutoModelForMaskedLM or AutoModelForCausalLM; ftlib.json beside it says template and words.

Schick and Schütze (2021), "Exploiting Cloze Questions for Few Shot Text Classification and Natural Language
Inference", https://arxiv.org/abs/2001.07676, section 3.1; without its ensemble and auxiliary loss. Templates as they
stand here, and the search for words: Gao, Fisch and Chen (2021), "Making Pre-trained Language Models Better Few-shot
Learners", https://arxiv.org/abs/2012.15723, sections 4 and 5.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ftlib.errors import UnsupportedError
from ftlib.problems.base import MAIN
from ftlib.strategies.base import LANGUAGE_MODEL_HEAD, Strategy

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import pyarrow as pa
    from transformers import PreTrainedModel

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.sizes import Size
    from ftlib.problems.base import Problem
    from ftlib.training.stage import Job
    from ftlib.training.trainer import Fitted

FORM = "cloze template"


def _with_gap(template: str) -> str:
    if template.count("{mask}") != 1:
        raise PydanticCustomError(
            "template",
            "{template} needs one {gap}, where the word is asked for, such as {example}",
            {"template": repr(template), "gap": "{mask}", "example": "'{text} It was {mask}.'"},
        )
    return template


def _as_words(value: Any) -> Any:
    """Take a word for a list of one, and ids of labels for their names."""
    if not isinstance(value, dict):
        return value
    listed = {k: [v] if isinstance(v, str) else v for k, v in value.items()}
    return {str(k) if type(k) is int else k: tuple(v) if isinstance(v, list) else v for k, v in listed.items()}


Word = Annotated[str, Field(min_length=1)]
Verbalizer = Annotated[
    dict[str, Annotated[tuple[Word, ...], Field(min_length=1)]],
    BeforeValidator(_as_words, json_schema_input_type=dict[str, str | list[str]]),
]


class Cloze(Strategy):
    """A template and a word for each label make the problem a language model's own; every weight learns."""

    leaves: ClassVar[frozenset[str]] = frozenset({FORM})

    template: Annotated[str, AfterValidator(_with_gap)] | None = None
    """What is asked, with the names of the problem's texts and {mask} in braces: "{text} It was {mask}." or
    "{text}? {mask}, {text_pair}", which null stands for."""

    verbalizer: Verbalizer | None = None
    """Label -> the word that stands for it, or several, whose logits are averaged. Each is one token of the base
    model. Null: the labels' own names where each is a word of one token, else words that are searched on the training
    rows."""

    train: bool = True
    """Whether weights learn; otherwise the pretrained model answers as it is (words may be searched all the same)."""

    num_candidates: int = Field(100, ge=1)
    """Searching: words that are tried for each label."""

    num_search_rows: int = Field(256, ge=1)
    """Searching: the most training rows of each label that are read."""

    @property
    def trains(self) -> bool:
        """Whether weights learn."""
        return self.train

    @property
    def refuses(self) -> Mapping[str, str]:
        """A prefix: it belongs to a head for labels."""
        return {"prefix": "start from base"}

    def check(self, problem: Problem) -> None:
        """Refuse a problem whose answer is no word beside a text, and a template or words that do not go with it.

        Raises:
            UnsupportedError: With the reason.
        """
        from ftlib.models.cloze import check_verbalizer
        from ftlib.models.cloze_templates import check_template

        super().check(problem)
        if problem.auto_class != "AutoModelForSequenceClassification" or problem.other_columns:
            raise UnsupportedError(
                f"cloze cannot train {problem.name}: a template asks for one word about one text or two, and the word "
                "stands for one label; choose full or lora."
            )
        if problem.target.kind != "single_label":
            raise UnsupportedError(
                f"cloze cannot train {problem.name} where a row has no label or many, or a number: words compete for "
                "one gap, so one label wins; choose full or lora."
            )
        if self.template is not None:
            check_template(self.template, problem.text_columns)
        if self.verbalizer is not None and problem.target.labels:
            check_verbalizer(self.verbalizer, problem.target.labels)

    def check_start(self, has: Collection[str], stage: str = "") -> None:
        """Refuse a stage that has put a head for labels in the place of the language model's."""
        super().check_start(has, stage)
        if stage and not {FORM, LANGUAGE_MODEL_HEAD} & set(has):
            raise UnsupportedError(
                f"cloze cannot start from stage {stage!r}, which has a head for labels in the place of the language "
                "model's; start from base, from a stage of cloze, or from one that learns to predict words."
            )

    def check_size(self, size: Size, problem: Problem) -> Size:
        """Refuse a base model that was published without its language model's head."""
        if size.predicts_words is False:
            raise UnsupportedError(
                "cloze needs a base model with its language model's head, and the config of this one names a class "
                "without; choose one such as bert-base-uncased or roberta-base, start from a stage of "
                "continued_pretraining, or choose full, lora or few_shot."
            )
        return size

    def open(self, folder: Path, problem: Problem, task: str = MAIN) -> Checkpoint:
        """Return the checkpoint as a language model that fills the form.

        Raises:
            UnsupportedError: If it has no such head, or template or words do not go with its tokenizer.
        """
        from ftlib.models import checkpoints

        self.check(problem)
        form = {"template": self.template, "verbalizer": self.verbalizer}
        return checkpoints.load(folder, problem, task, cloze=form)

    def adapt(self, model: PreTrainedModel, problem: Problem) -> PreTrainedModel:
        """Open all weights, or freeze them.

        Raises:
            UnsupportedError: If the checkpoint has a prefix, or was not opened by `open`.
        """
        from ftlib.models.peft_models import has_beyond_plain, open_weights

        has = has_beyond_plain(model)
        self.check_start(has)
        if FORM not in has:
            raise UnsupportedError(f"cloze cannot train {type(model).__name__}, which was opened without a template.")
        return open_weights(model) if self.train else model.requires_grad_(False)

    def learn(self, checkpoint: Checkpoint, rows: pa.Table, validation: pa.Table, job: Job) -> Fitted:
        """Search for words where there are none yet, then train."""
        self._find_words(checkpoint, rows, job.problem, job.name)
        return super().learn(checkpoint, rows, validation, job)

    def _find_words(self, checkpoint: Checkpoint, rows: pa.Table, problem: Problem, name: str) -> None:
        from ftlib.models.cloze import ClozeForm, attach, attached
        from ftlib.training.label_words import search

        form = attached(checkpoint.model)
        if form is None or not form.is_provisional:
            return
        words = search(checkpoint, rows, problem, num_candidates=self.num_candidates, num_rows=self.num_search_rows,
                       name=name)  # fmt: skip
        found = dict(zip(problem.target.labels, ((word,) for word in words), strict=True))
        attach(checkpoint.model, ClozeForm.of(form.template, problem.target.labels, found))
