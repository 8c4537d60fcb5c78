"""Checkpoints: a model and its tokenizer, had from a folder, a Python package or the hub; opened and saved.

A saved checkpoint is a plain folder: config.json, model.safetensors and tokenizer files that
``AutoModelForSequenceClassification.from_pretrained`` opens, or an adapter that peft opens with its base in
``base/``. Beside them ftlib.json says what made it, and ``heads/`` keeps the heads of other tasks
(`ftlib.models.heads`). Equal weights, equal bytes; no path of this machine.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import CheckpointError, UnsupportedError
from ftlib.files import read_json, write_json
from ftlib.models import families
from ftlib.models.heads import Head, put, read, renew, taken, write
from ftlib.models.pretrained import fetch, fingerprint
from ftlib.problems.base import MAIN

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ftlib.problems.base import Problem

__all__ = ["Checkpoint", "fetch", "fingerprint", "load", "load_tokenizer", "quiet", "save"]

SETTINGS = "ftlib.json"
ADAPTER = "adapter_config.json"
AS_THE_FILE_SAYS = "PreTrainedTokenizerFast"
"""The tokenizer class that takes tokenizer.json as it is: a model's own (BertTokenizer...) lays out special tokens
anew when it is opened, without the virtual ones."""

BASE = "base"
"""The folder inside an adapter's that holds the model it adapts."""

OF_THIS_MACHINE = frozenset({"name_or_path", "_name_or_path", "is_local", "local_files_only"})
"""What transformers writes into configs of where and how they were opened; left out."""

OF_THE_LAST_CALL = frozenset({"max_length", "stride", "truncation_strategy", "truncation_side", "pad_to_multiple_of"})
"""What it writes of how a tokenizer was last called; left out."""


@dataclass
class Checkpoint:
    """A model with its tokenizer and what is known of it.

    Attributes:
        model: A transformers model, or a peft one around it.
        tokenizer: What rows are encoded with; it inserts no virtual tokens, the model does.
        settings: What ftlib.json holds: strategy, num_parameters, task, problem...; {} for a pretrained model.
        heads: Task -> the head that is kept for it, of tasks other than the one it is opened for.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return a checkpoint's tokenizer, as rows are encoded with it.

    Raises:
        CheckpointError: If the folder holds none that can be opened.
    """
    from transformers import AutoTokenizer

    from ftlib.models.virtual_tokens import VirtualTokens, without_virtual

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: no tokenizer can be opened ({_first_line(error)}).") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    virtual = _settings(folder).get("virtual_tokens")
    return without_virtual(tokenizer, VirtualTokens.parse(virtual)) if virtual else tokenizer


def load(folder: Path, problem: Problem, task: str = MAIN, *, cloze: Mapping[str, Any] | None = None) -> Checkpoint:
    """Open a checkpoint with the head that `problem` needs; a missing head is drawn at random, so seed first.

    Args:
        folder: What `fetch` or `save` wrote.
        problem: What is learned, its labels filled in.
        task: What it is called. A checkpoint of another task is opened with the head that it keeps for this one,
            else with a new one.
        cloze: Where the pretrained language model is to answer, in words (`ftlib.models.cloze.form_of`): what differs
            from the form that the checkpoint has, or from the default.

    Raises:
        CheckpointError: If the folder holds no model that can be opened, or one for other labels.
        UnsupportedError: If the problem cannot be learned with such a model.
    """
    from ftlib.models.cloze import attach as attach_form
    from ftlib.models.cloze import form_of
    from ftlib.models.virtual_tokens import VirtualTokens, attach, layout

    settings = _settings(folder)
    families.check(folder, problem)
    is_own = settings.get("task", MAIN) == task or "problem" not in settings
    form = settings.get("cloze") if is_own else None
    is_cloze = cloze is not None or form is not None
    tokenizer = problem.load_tokenizer(folder)
    auto_class = families.language_model(folder, "cloze") if is_cloze else problem.auto_class
    if is_own:
        _check_labels(folder, settings, problem)
        model, heads = _load_model(folder, problem, auto_class, whole=is_cloze), read(folder)
    else:
        model, heads, settings = _load_other(folder, problem, task, auto_class, whole=is_cloze)
    if tokenizer.pad_token_id is not None:
        model.config.pad_token_id = tokenizer.pad_token_id
    model.token_layout = layout(tokenizer)  # type: ignore[assignment]
    if settings.get("virtual_tokens"):
        attach(model, VirtualTokens.parse(settings["virtual_tokens"]))
    if is_cloze:
        wanted = {**(form or {}), **{k: v for k, v in (cloze or {}).items() if v is not None}}
        attach_form(model, form_of(wanted, problem, tokenizer, is_causal=auto_class == "AutoModelForCausalLM"))
    _align(model)
    problem.prepare(model, tokenizer)
    return Checkpoint(model.eval(), tokenizer, settings, heads)


def _load_other(
    folder: Path, problem: Problem, task: str, auto_class: str, *, whole: bool
) -> tuple[PreTrainedModel, dict[str, Head], dict[str, Any]]:
    """Return a checkpoint of another task as a model of this one; the heads of all others; what is known of it."""
    if (folder / ADAPTER).exists():
        raise UnsupportedError(
            f"{folder}: a checkpoint with a prefix answers its own task alone; start task {task!r} from base, or from "
            "a stage without one."
        )
    settings, heads = _settings(folder), read(folder)
    head = heads.pop(task, None)
    model = _load_plain(folder, problem, auto_class, whole=whole)
    if head is not None:
        _check_labels(folder, {"problem": head.problem}, problem)
        put(model, head, task)
    elif not whole:
        renew(model, problem)
    if "cloze" not in settings and settings.get("keeps_head", True):
        heads[settings.get("task", MAIN)] = _own_head(folder, settings)
    known = {"problem": head.problem, "tuned": head.tuned} if head is not None else {}
    gone = ("problem", "tuned", "cloze", "keeps_head")
    settings = {name: value for name, value in settings.items() if name not in gone}
    return model, heads, {**settings, **{name: value for name, value in known.items() if value}, "task": task}


def _own_head(folder: Path, settings: dict[str, Any]) -> Head:
    """Return the head that the plain model of a folder has."""
    from ftlib.problems.base import Problem

    problem = Problem.model_validate(settings["problem"])
    return taken(_load_plain(folder, problem, problem.auto_class), settings)


def save(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint into a folder, so that plain transformers (or peft) opens it.

    Args:
        checkpoint: What `ftlib.training.train` gave.
        folder: Made where missing.
    """
    from ftlib.models import cloze
    from ftlib.models.virtual_tokens import attached, with_virtual

    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    virtual, form = attached(model), cloze.attached(model)
    if virtual:
        tokenizer = with_virtual(tokenizer, virtual)
    with quiet():
        if hasattr(model, "peft_config"):
            _save_adapter(model, folder)
            _save_tokenizer(tokenizer, folder / BASE, as_the_file_says=virtual is not None)
        else:
            _save_plain(model, folder)
        _save_tokenizer(tokenizer, folder, as_the_file_says=virtual is not None)
    settings = {k: v for k, v in checkpoint.settings.items() if k not in ("virtual_tokens", "cloze")}
    settings |= {"virtual_tokens": virtual.dump()} if virtual else {}
    write_json(folder / SETTINGS, {**settings, **({"cloze": form.dump()} if form else {})})
    write(checkpoint.heads, folder)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own messages and progress bars off the terminal."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if had_bars:
            transformers_logging.enable_progress_bar()


def _align(model: nn.Module) -> None:
    """Copy weights to memory of torch's own, which is aligned.

    safetensors gives views at any address, and vectorised products may round by alignment: then equal runs differ.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _load_model(folder: Path, problem: Problem, auto_class: str, *, whole: bool) -> PreTrainedModel:
    if (folder / ADAPTER).exists():
        return _load_adapter(folder, problem, auto_class, whole=whole)
    return _load_plain(folder, problem, auto_class, whole=whole)


def _load_plain(folder: Path, problem: Problem, auto_class: str, *, whole: bool = False) -> PreTrainedModel:
    """Open a model; `whole`: none of its weights may be drawn at random."""
    import torch
    import transformers
    from safetensors import SafetensorError

    try:
        with quiet():
            model, found = getattr(transformers, auto_class).from_pretrained(
                str(folder),
                output_loading_info=True,
                dtype=torch.float32,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # a head for other labels gives way to a new one
                **problem.model_settings(),
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: no model can be opened ({_first_line(error)}).") from error
    if whole and found["missing_keys"]:
        raise UnsupportedError(_no_words(model, sorted(found["missing_keys"])))
    return model


def _no_words(model: PreTrainedModel, missing: list[str]) -> str:
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return (
        f"cloze cannot start from a checkpoint without a language model's head: {type(model).__name__} lacks {shown}. "
        "Drawn at random, it would know no words; start from a base model that was published with it, such as "
        "bert-base-uncased or roberta-base, or choose full, lora or few_shot."
    )


def _load_adapter(folder: Path, problem: Problem, auto_class: str, *, whole: bool) -> PreTrainedModel:
    from peft import PeftModel

    from ftlib.models.peft_models import known_warnings

    base = _load_plain(folder / BASE, problem, auto_class, whole=whole)
    with known_warnings():
        return PeftModel.from_pretrained(base, str(folder))  # type: ignore[return-value,arg-type]


def _save_plain(model: PreTrainedModel, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    model.config._name_or_path = ""
    model.save_pretrained(folder, state_dict=state)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {k: v for k, v in config.items() if k not in OF_THIS_MACHINE})


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, *, as_the_file_says: bool = False) -> None:
    """Write the tokenizer, without what it remembers of its last call: how that was cut and padded."""
    tokenizer = copy.deepcopy(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    forgotten = OF_THIS_MACHINE | OF_THE_LAST_CALL
    config = {k: v for k, v in read_json(path).items() if k not in forgotten}
    sides = {k: v for k, v in (("truncation_side", tokenizer.truncation_side),) if v != "right"}
    opened = {"tokenizer_class": AS_THE_FILE_SAYS, "model_input_names": list(tokenizer.model_input_names)}
    write_json(path, {**config, **sides, **(opened if as_the_file_says else {})})
    if hasattr(tokenizer, "image_processor"):
        tokenizer.image_processor.save_pretrained(folder)


def _save_adapter(model: Any, folder: Path) -> None:
    for config in model.peft_config.values():
        config.base_model_name_or_path = BASE
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    config = read_json(folder / ADAPTER)  # peft writes sets, in any order, and repeats names at every opening
    write_json(folder / ADAPTER, {k: sorted(set(v)) if _is_names(v) else v for k, v in config.items()})
    base = model.get_base_model()
    _save_plain(base, folder / BASE, _plain_state(base))


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _plain_state(base: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a model that peft has changed, under the names they had before."""
    state = {}
    for name, value in base.state_dict().items():
        if any(part in name for part in (".modules_to_save.", ".lora_", ".ia3_")):
            continue
        state[name.replace(".original_module.", ".").replace(".base_layer.", ".")] = value
    return state


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    return read_json(path) if path.exists() else {}


def _check_labels(folder: Path, settings: dict[str, Any], problem: Problem) -> None:
    trained = settings.get("problem", {}).get("labels")
    wanted = problem.model_settings()
    if trained is None or not hasattr(problem, "labels"):
        return
    if list(trained) != list(wanted.get("id2label", {}).values()):
        raise CheckpointError(
            f"{folder}: was trained for the labels {', '.join(trained)}, not for "
            f"{', '.join(wanted.get('id2label', {}).values())}; train it again on these rows."
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
