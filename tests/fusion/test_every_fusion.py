"""What every fusion keeps, whatever its method: over all plugins found, and all kinds of target."""

from __future__ import annotations

import time
import zipfile

import numpy as np
import pytest
from simulated import KINDS, METHODS, fusion, main_metric, named, simulated

from ftlib.errors import ArtifactError
from ftlib.files import write_json
from ftlib.fusion.base import Fusion

FITTED = [m for m in METHODS if m["name"] in ("greedy", "stacking") or m == {"name": "weighted"}]
every_method = pytest.mark.parametrize("method", METHODS, ids=named)
every_kind = pytest.mark.parametrize("kind", KINDS)


def test_every_plugin_is_among_the_methods_tested():
    assert {method["name"] for method in METHODS} == set(Fusion.available())


@pytest.mark.parametrize("name", Fusion.available())
def test_a_fusion_needs_no_argument_and_its_card_names_a_source(name: str):
    plugin = Fusion.named(name)
    assert plugin().name == name
    assert "http" in plugin.card()


@every_method
@every_kind
def test_fused_scores_are_scores(method: dict, kind: str):
    target, scores, references = simulated(kind)
    fused = fusion(method).fit(scores, references, target, seed=1)(scores)
    assert fused.shape == scores.shape[1:]
    assert fused.dtype == np.float64
    assert np.isfinite(fused).all()
    if kind != "value":
        assert (fused >= 0).all()
        assert (fused <= 1).all()
    if "labels" in kind:
        np.testing.assert_allclose(fused.sum(1), 1, atol=1e-9)


@every_method
@every_kind
def test_a_loaded_combiner_gives_the_same_scores(method: dict, kind: str, tmp_path):
    target, scores, references = simulated(kind)
    plugin = fusion(method)
    combiner = plugin.fit(scores, references, target, seed=1)
    combiner.save(tmp_path)
    loaded = type(plugin).load(tmp_path)
    np.testing.assert_array_equal(loaded(scores), combiner(scores))
    assert loaded.weights() == combiner.weights()


@every_method
@every_kind
def test_fitting_twice_gives_the_same_bytes(method: dict, kind: str, tmp_path):
    target, scores, references = simulated(kind)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fusion(method).fit(scores, references, target, seed=1).save(tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) <= {"combiner.json", "combiner.npz"}


@every_method
@every_kind
def test_a_row_gets_the_same_scores_in_any_batch(method: dict, kind: str):
    target, scores, references = simulated(kind)
    combiner = fusion(method).fit(scores, references, target, seed=1)
    whole = combiner(scores)
    for start, stop in ((0, 1), (7, 20), (100, 240)):
        np.testing.assert_array_equal(combiner(scores[:, start:stop]), whole[start:stop])


@every_method
@every_kind
def test_weights_sum_to_one_and_a_member_at_zero_is_never_read(method: dict, kind: str):
    target, scores, references = simulated(kind)
    combiner = fusion(method).fit(scores, references, target, seed=1)
    weights = combiner.weights()
    if weights is None:
        return
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0
    without = scores.copy()
    without[[i for i, weight in enumerate(weights) if weight == 0]] = np.nan
    np.testing.assert_array_equal(combiner(without), combiner(scores))


@every_method
@every_kind
def test_a_fusion_of_good_and_useless_members_is_useful(method: dict, kind: str):
    """Not below the mean member on rows it was not fitted on."""
    target, scores, references = simulated(kind, 1200)
    combiner = fusion(method).fit(scores[:, :600], references[:600], target, seed=1)
    fused = main_metric(target, combiner(scores[:, 600:]), references[600:])
    alone = [main_metric(target, member[600:], references[600:]) for member in scores]
    assert fused > np.mean(alone)


@pytest.mark.parametrize("method", FITTED, ids=named)
@every_kind
def test_a_fitted_fusion_beats_the_best_member(method: dict, kind: str):
    target, scores, references = simulated(kind, 1600)
    combiner = fusion(method).fit(scores[:, :800], references[:800], target, seed=1)
    fused = main_metric(target, combiner(scores[:, 800:]), references[800:])
    assert fused > max(main_metric(target, member[800:], references[800:]) for member in scores)


@every_method
@every_kind
def test_one_member_alone_can_be_fused(method: dict, kind: str):
    target, scores, references = simulated(kind, noise=(0.6,))
    combiner = fusion(method).fit(scores, references, target, seed=1)
    assert main_metric(target, combiner(scores), references) >= main_metric(target, scores[0], references) - 0.03


@every_method
@every_kind
def test_scores_and_references_are_not_changed(method: dict, kind: str):
    target, scores, references = simulated(kind)
    before, gold = scores.copy(), references.copy()
    fusion(method).fit(scores, references, target, seed=1)(scores)
    np.testing.assert_array_equal(scores, before)
    np.testing.assert_array_equal(references, gold)


@pytest.mark.parametrize("name", Fusion.available())
def test_loading_a_folder_without_a_combiner_says_so(name: str, tmp_path):
    with pytest.raises(ArtifactError, match=r"holds no combiner\.json"):
        Fusion.named(name).load(tmp_path)


@pytest.mark.parametrize("name", Fusion.available())
def test_loading_another_makes_combiner_says_so(name: str, tmp_path):
    write_json(tmp_path / "combiner.json", {"combiner": "oracle"})
    with pytest.raises(ArtifactError, match="'oracle'"):
        Fusion.named(name).load(tmp_path)


def test_arrays_are_saved_without_times_or_pickles(tmp_path):
    target, scores, references = simulated("five labels")
    fusion({"name": "stacking"}).fit(scores, references, target, seed=1).save(tmp_path)
    with zipfile.ZipFile(tmp_path / "combiner.npz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with np.load(tmp_path / "combiner.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"coefficients", "intercepts"}


def test_fitting_is_quick_enough_to_be_cross_fitted():
    target, scores, references = simulated("five labels", 2000)
    started = time.perf_counter()
    for method in METHODS[:-1]:
        fusion(method).fit(scores, references, target, seed=1)
    assert time.perf_counter() - started < 20  # about one second on a free core
