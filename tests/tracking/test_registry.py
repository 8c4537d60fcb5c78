from __future__ import annotations

import time
from pathlib import Path

import pytest

from ftlib import state, tracking
from ftlib.errors import CheckpointError, TrackingError
from ftlib.files import write_json
from ftlib.serving.finding import resolve
from ftlib.tracking import Journal

DIGESTS = ("ab" * 32, "cd" * 32)


def fake_model(folder: Path) -> Path:
    """Write what registration reads of a packed model."""
    folder.mkdir(parents=True)
    problem = {"name": "text_classification", "labels": ["bug", "billing"]}
    write_json(folder / "model.json", {"format": 1, "problem": problem})
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return fake_model(tmp_path / "packed")


def registered(home: Path, model: Path, digest: str, **options) -> tuple[Journal, tracking.Sent | None]:
    journal = Journal.start(home, experiment="support", run_name="run")
    details = {"name": "support", "alias": "champion", "metrics": {"test_accuracy": 0.9}, "tags": {"best": "stacking"}}
    journal.register(model, digest=digest, **{**details, **options})
    journal.finish()
    return journal, tracking.send(journal)


def test_a_registered_model_is_found_by_alias_version_and_run(home: Path, client, model: Path):
    _, sent = registered(home, model, DIGESTS[0])
    assert (sent.model_uri, sent.model_version) == ("models:/support@champion", "1")
    places = {resolve(uri) for uri in (sent.model_uri, "models:/support/1", f"runs:/{sent.run_id}")}
    [place] = places
    assert place.is_relative_to(home / "mlflow" / "artifacts")
    assert (place / "model.json").read_bytes() == (model / "model.json").read_bytes()


def test_a_version_tells_what_it_is(home: Path, client, model: Path):
    _, sent = registered(home, model, DIGESTS[0])
    version = client.get_model_version_by_alias("support", "champion")
    assert version.run_id == sent.run_id
    assert {k: version.tags[k] for k in ("ftlib.digest", "test_accuracy", "best")} == {
        "ftlib.digest": DIGESTS[0], "test_accuracy": "0.9", "best": "stacking",
    }  # fmt: skip
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert {m.key: m.value for m in logged.metrics} == {"test_accuracy": 0.9}


def test_the_model_is_logged_as_code_with_signature_and_pinned_requirements(home: Path, client, model: Path):
    import yaml

    registered(home, model, DIGESTS[0])
    [folder] = (home / "mlflow" / "artifacts" / "support" / "models").glob("*/artifacts")
    about = yaml.safe_load((folder / "MLmodel").read_text())
    assert about["flavors"]["python_function"]["loader_module"] == "mlflow.pyfunc.loaders.code_model"
    assert '"name": "text", "required": true' in about["signature"]["inputs"]
    assert '"score:billing"' in about["signature"]["outputs"]
    requirements = (folder / "requirements.txt").read_text().split()
    assert all("==" in line and "+" not in line for line in requirements)
    assert {line.partition("==")[0] for line in requirements} >= {"mlflow", "torch", "transformers", "ftfy"}
    assert (folder / "code" / "ftlib" / "serving" / "answering.py").is_file()
    assert (folder / "input_example.json").is_file()
    assert not [p for p in folder.rglob("*") if p.suffix in (".pkl", ".pickle", ".pyc")]


def test_the_same_digest_stays_one_version(home: Path, client, model: Path):
    registered(home, model, DIGESTS[0])
    _, sent = registered(home, model, DIGESTS[0])
    assert sent.model_version == "1"
    again = tracking.register(model, digest=DIGESTS[0], name="support", alias="champion")
    assert again == tracking.Registered("models:/support@champion", "1")
    assert len(client.search_model_versions("name = 'support'")) == 1
    assert client.get_run(sent.run_id).outputs.model_outputs, "the second run shows the model as its outcome too"


def test_another_digest_is_a_new_version_and_takes_the_alias(home: Path, client, model: Path):
    registered(home, model, DIGESTS[0])
    _, sent = registered(home, model, DIGESTS[1])
    assert sent.model_version == "2"
    assert str(client.get_model_version_by_alias("support", "champion").version) == "2"


def test_going_back_to_an_earlier_model_moves_the_alias_back(home: Path, client, model: Path):
    for digest in (*DIGESTS, DIGESTS[0]):
        registered(home, model, digest)
    assert str(client.get_model_version_by_alias("support", "champion").version) == "1"


def test_a_record_sent_late_takes_no_alias_from_a_newer_model(home: Path, client, model: Path):
    late = Journal.start(home, experiment="support", run_name="late")
    late.register(model, digest=DIGESTS[0], name="support", alias="champion")
    late.finish()
    time.sleep(0.01)
    registered(home, model, DIGESTS[1])
    tracking.send(late)
    assert client.get_model_version_by_alias("support", "champion").tags["ftlib.digest"] == DIGESTS[1]
    assert len(client.search_model_versions("name = 'support'")) == 2


def test_a_model_that_is_gone_holds_nothing_up(home: Path, client, tmp_path: Path, caplog):
    _, sent = registered(home, tmp_path / "gone", DIGESTS[0])
    assert sent.model_uri is None
    assert client.get_run(sent.run_id).info.status == "FINISHED"
    assert "is gone; model 'support' is not registered" in caplog.text
    with pytest.raises(TrackingError, match="holds no packed model"):
        tracking.register(tmp_path / "gone", digest=DIGESTS[0], name="support", alias="champion")


def test_the_stores_own_copy_is_served_where_it_is_whole(home: Path, client):
    store = state.store()
    with store.draft() as draft:
        write_json(draft.folder / "model.json", {"format": 1, "problem": {"name": "text_regression"}})
        artifact = store.commit(draft)
    folder = store.open(artifact)
    registered(home, folder, artifact.digest)
    assert resolve("models:/support@champion") == folder
    store.remove(artifact.digest)
    assert resolve("models:/support@champion").is_relative_to(home / "mlflow")


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("models:/suport@champion", "unknown registered model 'suport'. Did you mean 'support'?"),
        ("models:/support@champoin", "unknown alias 'champoin'. Did you mean 'champion'?"),
        ("models:/support/7", "unknown version '7'. Expected one of: 1."),
        ("runs:/0123", "MLflow has no run '0123'."),
    ],
)
def test_a_wrong_name_is_answered_with_the_near_ones(home: Path, client, model: Path, uri: str, line: str):
    registered(home, model, DIGESTS[0])
    with pytest.raises(CheckpointError) as caught:
        resolve(uri)
    assert str(caught.value) == f"{uri}: {line}"


def test_a_run_that_registered_nothing_says_so(home: Path, client):
    journal = Journal.start(home, experiment="support", run_name="run")
    journal.finish()
    sent = tracking.send(journal)
    with pytest.raises(CheckpointError, match="registered no model"):
        resolve(f"runs:/{sent.run_id}")
