"""Image and text classification: an image, with or without a text of its own, gets one of the labels (CLIP family).

A label is what its prompts say: "a photo of a {label}." Images are compared with the prompts' embeddings, so there is
no new head, a model answers before any training (strategy zero_shot), and unseen labels can be asked for. Several
templates are averaged (Radford et al., 2021, section 3.1.4). Fine-tuning teaches by cross-entropy over the labels'
prompts, as pretraining did over captions (Goyal et al., 2023, "Finetune like you pretrain",
https://arxiv.org/abs/2212.00638, found this the better way). Helps where images are many and labels can be put into
words; where they cannot ("grade 3"), wordings matter more than the model.

Row: ``{"image": "photos/7.jpg", "label": "cat"}``; the image is a path (from data.folder, else the source's own
folder), the file's bytes, or the hub's {"bytes", "path"}. With multi_label a list of labels, each weighed against
`neutral_prompt`: its probability says how much nearer its prompt is. With use_text a column `text`: the row is the sum
of both embeddings, brought back to length 1 (Baldrati et al., 2022, https://arxiv.org/abs/2204.10496, begin from this
sum); a row whose text is empty is its image alone.

Images are kept as bytes of the model's size: at 224 x 224, 151 MB per 1,000 images, in the store and in memory.

Loss: cross-entropy; with multi_label, binary cross-entropy per label. Usual metric: accuracy where the labels are
balanced, macro F1 where they are not; micro and macro F1 with multi_label.

Radford et al. (2021), "Learning Transferable Visual Models From Natural Language Supervision",
https://arxiv.org/abs/2103.00020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ftlib.errors import CheckpointError
from ftlib.problems._labels import Labels, Threshold, bound, check_enough, target
from ftlib.problems.base import Problem

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from torch import Tensor

    from ftlib.models.checkpoints import Checkpoint
    from ftlib.models.forward import Watch
    from ftlib.problems._questions import Posed, Question
    from ftlib.targets.base import Target
    from ftlib.training.precision import Precision

LABEL = "{label}"


def _with_label(template: str) -> str:
    if LABEL not in template:
        raise PydanticCustomError("template", "{text} has no place for the label; write it with {place}, such as "
                                  "'a photo of a {place}.'", {"text": repr(template), "place": LABEL})  # fmt: skip
    return template


class ImageTextClassification(Problem):
    """An image, with or without a text, gets one of the labels, or any number of them, by the labels' prompts."""

    text_columns: ClassVar[tuple[str, ...]] = ()
    other_columns: ClassVar[tuple[str, ...]] = ("image",)
    file_columns: ClassVar[tuple[str, ...]] = ("image",)
    auto_class: ClassVar[str] = "AutoModel"
    peft_task_type: ClassVar[str] = "FEATURE_EXTRACTION"
    families: ClassVar[tuple[str, ...]] = ("image_text",)
    model_inputs: ClassVar[tuple[str, ...]] = ("input_ids", "has_text", "pixel_values")
    answers_untrained: ClassVar[bool] = True
    refuses: ClassVar[Mapping[str, str]] = {
        "prefix": "the towers of such models take no keys and values from outside; prompt_tuning learns the words of "
        "the labels' prompts, lora learns in both towers"
    }

    labels: Labels = ()
    """Label names in the order of their ids; learned from the training rows, sorted, unless given."""

    multi_label: bool = False
    """Whether a row may have any number of labels, each decided on its own."""

    threshold: Threshold = 0.5
    """With multi_label: the probability from which a label is given."""

    templates: Annotated[tuple[Annotated[str, AfterValidator(_with_label)], ...], Field(min_length=1)] = (
        "a photo of a {label}.",
    )
    """What a label's prompts say; the embeddings of several are averaged. Each costs the text tower a pass a step."""

    wordings: dict[str, str] = {}
    """How labels are worded in prompts where the name is not what one would write: {cs: computer science}. Other
    labels are worded as they are called, underscores as spaces."""

    neutral_prompt: str = Field("a photo.", min_length=1)
    """With multi_label: what each label's prompts are weighed against."""

    use_text: bool = False
    """Whether rows have a column `text` that is read beside the image; it may be empty, and is read as it is."""

    max_length: int = Field(77, ge=8)
    """Tokens kept of a row's text; longer ones are cut, and counted."""

    @model_validator(mode="after")
    def _check_enough(self) -> Self:
        check_enough(self.labels, self.multi_label)
        return self

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The image, and the text where it is used."""
        return ("image", "text") if self.use_text else ("image",)

    @property
    def target(self) -> Target:
        """One label, or a set of labels."""
        return target(self.labels, self.multi_label, self.threshold)

    def bind(self, labels: tuple[str, ...]) -> Self:
        """Return this problem with its label names filled in; names from the params keep their order."""
        return self.model_copy(update={"labels": bound(self.labels, labels)})

    def prompts(self) -> list[list[str]]:
        """Return each label's prompts, one a template; with multi_label also what they are weighed against, last."""
        worded = [self.wordings.get(label, label.replace("_", " ")) for label in self.labels]
        texts = [[template.replace(LABEL, words) for template in self.templates] for words in worded]
        return [*texts, [self.neutral_prompt] * len(self.templates)] if self.multi_label else texts

    # -- rows --------------------------------------------------------------------------------------

    def check_inputs(self, rows: pa.Table) -> pa.Array:
        """Return why images cannot be read."""
        from ftlib.problems._images import unreadable

        return unreadable(rows["image"], "image")

    def load_tokenizer(self, folder: Path) -> Any:
        """Open the tokenizer, with the image processor beside it."""
        from ftlib.problems._images import with_images

        return with_images(super().load_tokenizer(folder), folder)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Refuse a tokenizer without an image processor."""
        if getattr(tokenizer, "image_processor", None) is None:
            raise CheckpointError(f"{self.name} needs an image processor beside the tokenizer; choose a CLIP model.")

    def encode(self, rows: pa.Table, tokenizer: Any) -> pa.Table:
        """Return pixels as bytes, the text's tokens where it is used, and how long rows are for the model."""
        import numpy as np
        import pyarrow as pa

        from ftlib.problems._images import image_shape, pixels

        found = {"pixel_values": pixels(rows["image"], tokenizer.image_processor)}
        num_truncated = pa.array(np.zeros(len(rows), np.int32))
        length = np.full(len(rows), _places(image_shape(tokenizer.image_processor)), np.int32)
        if self.use_text:
            texts, num_truncated = self._encode_texts(rows, tokenizer)
            length = length + np.asarray(pa.compute.list_value_length(texts["input_ids"]), np.int32)
            found |= texts
        return pa.table({**found, "length": length, "num_truncated": num_truncated})

    def _encode_texts(self, rows: pa.Table, tokenizer: Any) -> tuple[dict[str, Any], Any]:
        import pyarrow.compute as pc

        from ftlib.problems._texts import encode_texts

        encoded = encode_texts(rows, ("text",), tokenizer, self.max_length).combine_chunks()
        texts = pc.utf8_trim_whitespace(pc.fill_null(rows["text"].cast("string"), ""))
        has_text = pc.greater(pc.utf8_length(texts), 0).cast("float32")
        return {"input_ids": encoded["input_ids"], "has_text": has_text}, encoded["num_truncated"]

    # -- the model ---------------------------------------------------------------------------------

    def prepare(self, model: Any, tokenizer: Any) -> None:
        """Leave on the model the labels' prompts, and how it wants its pixels."""
        from ftlib.models.image_text import prepare

        prepare(model, tokenizer, self.prompts())

    def tokens_beside_rows(self, model: Any) -> Any:
        """Return the tokens of the prompts."""
        from ftlib.models.image_text import prompt_tokens

        return prompt_tokens(model)

    def most_tokens(self, model: Any = None) -> int:
        """Return the length of the longest prompt, or of a row's text where that is used."""
        from ftlib.models.image_text import longest_prompt

        return max(longest_prompt(model) if model else 0, self.max_length if self.use_text else 0)

    def forward(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return how near each image, or image and text, is to each label's prompts, shape (batch_size, num_labels)."""
        from ftlib.models import image_text

        rows = image_text.embed_images(model, batch["pixel_values"])
        if self.use_text:
            texts = image_text.embed_texts(model, {k: batch[k] for k in ("input_ids", "attention_mask")})
            rows = rows + batch["has_text"].unsqueeze(-1) * texts
            rows = rows / rows.norm(dim=-1, keepdim=True)
        near = image_text.scale(model) * rows @ image_text.embed_prompts(model).T
        return near[:, :-1] - near[:, -1:] if self.multi_label else near

    def predict(
        self, checkpoint: Checkpoint, rows: pa.Table, *, precision: Precision = "float32", watch: Watch | None = None
    ) -> pa.Table:
        """Run a checkpoint over encoded rows, the prompts once for all of them."""
        from ftlib.models.image_text import reading

        with reading(checkpoint.model):
            return super().predict(checkpoint, rows, precision=precision, watch=watch)

    def pose(self, checkpoint: Checkpoint, rows: pa.Table, questions: Sequence[Question]) -> list[Posed]:
        """Return images, and the texts beside them where these are read."""
        from ftlib.problems._explained_images import pose

        return pose(self, checkpoint, rows, questions)

    @staticmethod
    def examples() -> list[dict[str, Any]]:
        """Return eight drawings of three labels."""
        from ftlib.data.sources._shapes import Drawing, png

        places = ((10, 12), (20, 18), (16, 14), (14, 20), (19, 12), (12, 18), (17, 17), (15, 13))
        labels = ("red circle", "blue square", "green triangle", "red circle", "blue square", "green triangle",
                  "red circle", "blue square")  # fmt: skip
        rows = []
        for i, (label, (x, y)) in enumerate(zip(labels, places, strict=True)):
            colour, shape = label.split()
            image = png(Drawing(colour, shape, x=x, y=y, radius=8 + i % 3))
            rows.append({"image": image, "label": label, "text": f"drawing {i} on white paper"})
        return rows


def _places(shape: tuple[int, ...]) -> int:
    """Return about how many places an image takes: patches of 16 x 16, the first place among them."""
    return shape[1] * shape[2] // 256 + 1
