from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ftlib import state
from ftlib.data.clean import Cleaning
from ftlib.data.encode import encode
from ftlib.errors import ArtifactError, CheckpointError, DataError
from ftlib.files import read_json, write_json
from ftlib.fusion._mean import WeightedMean
from ftlib.fusion.base import Fusion
from ftlib.models import checkpoints
from ftlib.prediction import predict
from ftlib.problems.base import Problem
from ftlib.serving import answering
from ftlib.serving.finding import resolve
from ftlib.serving.packing import pack

TEXTS = ["I was charged twice", "the app crashes", "a password"]


def scores_of(folder: Path, problem: Problem, texts: list[str]) -> np.ndarray:
    """Return scores as the pipeline's own steps compute them."""
    checkpoint = checkpoints.load(folder, problem)
    answers = {"single_label": "bug", "multi_label": ["bug"], "value": 0.0}
    labels = [answers[problem.target.kind]] * len(texts)
    rows = pa.table({"row_id": pa.array(range(len(texts)), pa.int64()), "text": texts, "label": labels})
    encoded, _ = encode(rows, problem, checkpoint.tokenizer)
    column = predict(checkpoint, encoded, problem).table.column("logits").combine_chunks()
    return problem.target.scores(column.flatten().to_numpy().reshape(len(texts), -1))


def weighted(folder: Path, shares: tuple[float, ...], space: str = "scores") -> tuple[Fusion, Path]:
    folder.mkdir()
    WeightedMean("single_label", space, shares).save(folder)
    return Fusion.named("weighted")(), folder


def test_a_served_member_says_what_the_pipeline_said(packed, checkpoint):
    served = answering.load(packed())
    answers = served.predict(TEXTS)
    expected = scores_of(checkpoint(), served.problem, TEXTS)
    labels = list(served.problem.target.labels)
    np.testing.assert_allclose(answers[[f"score:{label}" for label in labels]], expected, atol=1e-7)
    assert answers["prediction"].tolist() == [labels[i] for i in expected.argmax(1)]
    np.testing.assert_allclose(answers["confidence"], expected.max(1), atol=1e-7)
    assert answers["reason"].isna().all()


@pytest.mark.parametrize("space", ["scores", "logits"])
def test_a_served_fusion_says_what_all_its_members_said_though_some_are_not_there(packed, checkpoint, tmp_path, space):
    fusion = weighted(tmp_path / "fitted", (0.25, 0.0, 0.75), space)
    served = answering.load(packed(num_members=3, fusion=fusion))
    assert [m.name for m in served.members] == ["m0", "m2"]
    all_scores = np.stack([scores_of(checkpoint("single", i), served.problem, TEXTS) for i in range(3)])
    expected = type(fusion[0]).load(fusion[1])(all_scores)
    columns = [f"score:{label}" for label in served.problem.target.labels]
    np.testing.assert_allclose(served.predict(TEXTS)[columns], expected, atol=1e-7)


def test_members_with_the_same_tokenizer_share_one_encoding(packed, tmp_path: Path, monkeypatch):
    served = answering.load(packed(num_members=2, fusion=weighted(tmp_path / "fitted", (0.5, 0.5))))
    encoded = []
    whole = answering._encode
    monkeypatch.setattr(answering, "_encode", lambda *given: encoded.append(1) or whole(*given))
    served.predict(TEXTS)
    assert len(encoded) == 1


def test_members_with_different_tokenizers_each_read_their_own(tmp_path: Path, checkpoint):
    members = {"lower": checkpoint("single", 0), "cased": checkpoint("single", 0, lower=False)}
    problem = Problem.model_validate(read_json(members["lower"] / "ftlib.json")["problem"])
    (tmp_path / "packed").mkdir()
    pack(
        tmp_path / "packed",
        best="fused",
        problem=problem,
        cleaning=Cleaning(),
        members=members,
        fusions={"fused": weighted(tmp_path / "fitted", (0.5, 0.5))},
    )
    served = answering.load(tmp_path / "packed")
    expected = np.mean([scores_of(folder, problem, ["REFUND my login"]) for folder in members.values()], axis=0)
    columns = [f"score:{label}" for label in problem.target.labels]
    np.testing.assert_allclose(served.predict(["REFUND my login"])[columns], expected, atol=1e-7)


def test_rows_come_in_any_form_and_go_out_in_their_order(packed):
    served = answering.load(packed())
    expected = served.predict(TEXTS)
    records = [{"text": text, "other": 1} for text in TEXTS]
    for rows in (pd.DataFrame(records), pa.Table.from_pylist(records), records):
        pd.testing.assert_frame_equal(served.predict(rows), expected)
    backwards = served.predict(TEXTS[::-1])["confidence"].to_numpy()
    np.testing.assert_allclose(backwards[::-1], expected["confidence"], atol=1e-6)


def test_the_index_of_a_frame_is_kept(packed):
    rows = pd.DataFrame({"text": TEXTS}, index=[30, 10, 20])
    assert answering.load(packed()).predict(rows).index.tolist() == [30, 10, 20]


def test_rows_that_cannot_be_answered_say_why_and_stop_no_others(packed):
    served = answering.load(packed())
    hopeless = [None, float("nan"), pd.NA, pd.NaT, "", " \t\n", "<br/>", ["a"], b"a", "\u200b"]
    answers = served.predict(pd.DataFrame({"text": pd.Series([*hopeless, *TEXTS, 17, "\ud83d"], dtype=object)}))
    missing, empty = "missing text", "empty text"
    assert answers["reason"].tolist()[: len(hopeless)] == [
        missing, missing, missing, missing, empty, empty, empty, missing, missing, empty,
    ]  # fmt: skip
    assert answers["prediction"].tolist()[: len(hopeless)] == [None] * len(hopeless)
    assert answers["prediction"].notna().sum() == len(TEXTS) + 2
    assert answers.loc[len(hopeless) :, "reason"].isna().all()


@pytest.mark.parametrize("kind", ["single", "multi", "pair", "value"])
def test_no_row_at_all_gives_no_answer(packed, kind: str):
    served = answering.load(packed(kind))
    answers = served.predict(pd.DataFrame({c: pd.Series([], dtype=object) for c in served.problem.text_columns}))
    assert len(answers) == 0
    assert {"prediction", "reason"} <= set(answers.columns)


def test_rows_are_cleaned_as_in_training(packed):
    clean, dirty = "the app crashes", "the <b>app</b>   crashes&nbsp;"
    served = answering.load(packed())
    both = served.predict([clean, dirty])
    assert both["confidence"][0] == pytest.approx(both["confidence"][1], abs=1e-7)
    raw = answering.load(packed(cleaning=Cleaning(strip_html=False, collapse_whitespace=False)))
    both = raw.predict([clean, dirty])
    assert both["confidence"][0] != pytest.approx(both["confidence"][1], abs=1e-7)


def test_several_labels_are_answered_as_a_list_as_sure_as_its_least_sure_decision(packed, checkpoint):
    served = answering.load(packed("multi"))
    answers = served.predict(TEXTS)
    scores = scores_of(checkpoint("multi"), served.problem, TEXTS)
    assert answers["prediction"].tolist() == served.problem.target.decode(scores)
    np.testing.assert_allclose(answers["confidence"], np.maximum(scores, 1 - scores).min(1), atol=1e-7)


def test_a_number_is_answered_as_a_number(packed, checkpoint):
    served = answering.load(packed("value"))
    answers = served.predict([*TEXTS, None])
    assert answers.columns.tolist() == ["prediction", "reason"]
    assert answers["prediction"].dtype == np.float64
    np.testing.assert_allclose(
        answers["prediction"][:3], scores_of(checkpoint("value"), served.problem, TEXTS)[:, 0], atol=1e-6
    )
    assert np.isnan(answers["prediction"][3])


def test_pairs_need_both_texts(packed):
    served = answering.load(packed("pair"))
    rows = [{"text": "a b", "text_pair": "a c"}, {"text": "a"}, {"text": "", "text_pair": "b"}]
    assert served.predict(rows)["reason"].tolist() == [None, "missing text_pair", "empty text"]
    with pytest.raises(DataError, match="rows need the columns 'text' and 'text_pair'; a list of texts has only one"):
        served.predict(["a"])


def test_a_missing_column_is_answered_with_the_near_names(packed):
    with pytest.raises(DataError, match=r"missing column 'text'. Did you mean 'texts'\? The model reads text."):
        answering.load(packed()).predict(pd.DataFrame({"texts": ["a"], "label": ["b"]}))


def test_a_column_that_is_there_twice_is_refused(packed):
    rows = pd.DataFrame([["a", "b"]], columns=["text", "text"])
    with pytest.raises(DataError, match="column 'text' is there twice"):
        answering.load(packed()).predict(rows)


def test_a_stages_checkpoint_serves_alone(checkpoint, packed, caplog):
    alone = answering.load(resolve(checkpoint()))
    pd.testing.assert_frame_equal(alone.predict(TEXTS), answering.load(packed()).predict(TEXTS))
    assert "the default cleaning is used" in caplog.text


def test_a_stage_of_the_store_is_served_with_the_cleaning_it_was_trained_with(checkpoint, caplog):
    import shutil

    store = state.store()
    records = {}
    for step, needs in (("clean", None), ("split", "clean"), ("encode", "split"), ("train", "encode")):
        with store.draft() as draft:
            if step == "train":
                shutil.copytree(checkpoint(), draft.folder, dirs_exist_ok=True)
            (draft.folder / "step.txt").write_text(step)
            digest = store.commit(draft).digest
        components = {
            "parameters": {"cleaning": Cleaning(strip_html=False).model_dump()} if step == "clean" else {},
            "inputs": {"x": records[needs].digest} if needs else {},
        }
        key = {"key": digest, "digest": digest, "step": step, "components": components, "created": "2026"}
        records[step] = serving_record(key)
        store.remember(records[step])
    folder = resolve(records["train"].digest[:10])
    assert answering.load(folder).cleaning == Cleaning(strip_html=False)
    assert caplog.text == ""


def serving_record(values: dict):
    from ftlib.artifacts import KeyRecord

    return KeyRecord.model_validate(values)


@pytest.mark.parametrize(
    ("name", "error", "line"),
    [
        ("nowhere", CheckpointError, "nowhere: no such model. Expected models:/name@alias"),
        ("abcdef12", ArtifactError, "abcdef12: no artifact of .* begins so"),
        (".", CheckpointError, r"holds no model. Expected model.json \(a packed model\) or ftlib.json"),
    ],
)
def test_what_is_no_model_is_answered_with_what_would_be(name: str, error: type, line: str):
    with pytest.raises(error, match=line):
        resolve(name)


def test_a_model_of_a_later_format_says_what_to_install(packed):
    folder = packed()
    write_json(folder / "model.json", {**read_json(folder / "model.json"), "format": 2, "ftlib": "9.0"})
    with pytest.raises(CheckpointError, match=r"was packed by ftlib 9.0; install that version"):
        answering.load(folder)


@pytest.mark.filterwarnings("ignore")  # mlflow warns of its own type hints, and pandas of what mlflow does with it
@pytest.mark.parametrize("kind", ["single", "multi", "value"])
def test_mlflow_loads_the_model_from_its_code_and_gives_the_same_answers(packed, tmp_path, monkeypatch, kind: str):
    import json

    import mlflow.pyfunc
    from mlflow.models.model import Model

    from ftlib.tracking.registry import write_pyfunc

    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code in front
    folder = packed(kind)
    write_pyfunc(tmp_path / "model", folder, Model())
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    rows = pd.DataFrame({"text": pd.Series([*TEXTS, None], dtype=object)})
    answers = loaded.predict(rows)
    expected = answering.load(resolve(tmp_path / "model")).predict(rows)
    assert answers.columns.tolist() == expected.columns.tolist() == loaded.metadata.get_output_schema().input_names()
    assert answers["prediction"].tolist()[:3] == expected["prediction"].tolist()[:3]
    assert answers["reason"].tolist() == [None, None, None, "missing text"]
    assert "NaN" not in json.dumps(answers.to_dict("records")), "which is no JSON"
