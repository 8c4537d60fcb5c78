"""What every fusion keeps, whatever its method: over all plugins found, and all kinds of target."""

from __future__ import annotations

import time
import zipfile

import numpy as np
import pytest
from simulated import (
    CANDIDATES,
    ELSEWHERE,
    KINDS,
    METHODS,
    apply,
    fusion,
    goes,
    main_metric,
    named,
    simulated,
    some,
)

from ftlib.errors import ArtifactError, UnsupportedError
from ftlib.files import write_json
from ftlib.fusion.base import Fusion

FITTED = [m for m in METHODS if m["name"] in ("greedy", "stacking") or m == {"name": "weighted"}]
every_method = pytest.mark.parametrize("method", METHODS, ids=named)
every_kind = pytest.mark.parametrize("kind", KINDS)


def cells(methods=METHODS, kinds=KINDS):
    """Every method with every kind that it goes with."""
    pairs = [(method, kind) for method in methods for kind in kinds if goes(method, kind)]
    return pytest.mark.parametrize(("method", "kind"), pairs, ids=lambda v: v if isinstance(v, str) else named(v))


def fitted(method: dict, kind: str, num_rows: int = 240, **settings):
    """Return (target, scores, references, combiner)."""
    target, scores, references = simulated(kind, num_rows, **settings)
    plugin = fusion(method)
    plugin.check(target)
    return target, scores, references, plugin.fit(scores, references, target, seed=1)


def test_every_plugin_is_among_the_methods_tested():
    assert {method["name"] for method in METHODS} | ELSEWHERE >= set(Fusion.available())


@pytest.mark.parametrize("name", Fusion.available())
def test_a_fusion_needs_no_argument_and_its_card_names_a_source(name: str):
    plugin = Fusion.named(name)
    assert plugin().name == name
    assert "http" in plugin.card()


@cells()
def test_fused_scores_are_scores(method: dict, kind: str):
    target, scores, _, combiner = fitted(method, kind)
    fused = apply(combiner, target, scores)
    assert fused.shape == scores.shape[1:]
    assert fused.dtype == np.float64
    assert np.isfinite(fused).all()
    if kind != "value":
        assert (fused >= 0).all()
    if kind not in ("value", *CANDIDATES):
        assert (fused <= 1).all()
    if target.unit_kind == "single_label":
        np.testing.assert_allclose(fused.sum(1), 1, atol=1e-9)


@cells()
def test_a_loaded_combiner_gives_the_same_scores(method: dict, kind: str, tmp_path):
    target, scores, _, combiner = fitted(method, kind)
    combiner.save(tmp_path)
    loaded = type(fusion(method)).load(tmp_path)
    np.testing.assert_array_equal(apply(loaded, target, scores), apply(combiner, target, scores))
    assert loaded.weights() == combiner.weights()


@cells()
def test_fitting_twice_gives_the_same_bytes(method: dict, kind: str, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fitted(method, kind)[-1].save(tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) <= {"combiner.json", "combiner.npz"}


@cells()
def test_a_row_gets_the_same_scores_in_any_batch(method: dict, kind: str):
    target, scores, references, combiner = fitted(method, kind)
    whole = apply(combiner, target, scores)
    for start, stop in ((0, 1), (7, 20), (100, 240)):
        rows = np.arange(start, stop)
        part, given, _ = some(target, scores, references, rows)
        np.testing.assert_array_equal(apply(combiner, part, given), whole[target.positions(rows)])


@cells()
def test_weights_sum_to_one_and_a_member_at_zero_is_never_read(method: dict, kind: str):
    target, scores, _, combiner = fitted(method, kind)
    weights = combiner.weights()
    if weights is None:
        return
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0
    without = scores.copy()
    without[[i for i, weight in enumerate(weights) if weight == 0]] = np.nan
    np.testing.assert_array_equal(apply(combiner, target, without), apply(combiner, target, scores))


@cells()
def test_a_fusion_of_good_and_useless_members_is_useful(method: dict, kind: str):
    """Not below the mean member on rows it was not fitted on."""
    target, scores, references = simulated(kind, 1200)
    first = np.arange(1200) < 600
    known, known_scores, known_references = some(target, scores, references, first)
    combiner = fusion(method).fit(known_scores, known_references, known, seed=1)
    rest, scores, references = some(target, scores, references, ~first)
    fused = main_metric(rest, apply(combiner, rest, scores), references)
    assert fused > np.mean([main_metric(rest, member, references) for member in scores])


@cells(FITTED)
def test_a_fitted_fusion_beats_the_best_member(method: dict, kind: str):
    target, scores, references = simulated(kind, 1600)
    first = np.arange(1600) < 800
    known, known_scores, known_references = some(target, scores, references, first)
    combiner = fusion(method).fit(known_scores, known_references, known, seed=1)
    rest, scores, references = some(target, scores, references, ~first)
    fused = main_metric(rest, apply(combiner, rest, scores), references)
    assert fused > max(main_metric(rest, member, references) for member in scores)


@cells()
def test_one_member_alone_can_be_fused(method: dict, kind: str):
    target, scores, references, combiner = fitted(method, kind, noise=(0.6,))
    fused = main_metric(target, apply(combiner, target, scores), references)
    assert fused >= main_metric(target, scores[0], references) - 0.03


@cells()
def test_scores_and_references_are_not_changed(method: dict, kind: str):
    target, scores, references = simulated(kind)
    before, gold = scores.copy(), references.copy()
    apply(fusion(method).fit(scores, references, target, seed=1), target, scores)
    np.testing.assert_array_equal(scores, before)
    np.testing.assert_array_equal(references, gold)


@cells(kinds=("words", *CANDIDATES))
def test_no_rows_and_rows_without_units_are_fused_to_none(method: dict, kind: str):
    target, scores, references, combiner = fitted(method, kind)
    for rows in (np.arange(0), np.flatnonzero(target.layout.counts == 0)[:3]):
        part, given, _ = some(target, scores, references, rows)
        assert apply(combiner, part, given).shape == (0, scores.shape[2])


@pytest.mark.parametrize("method", [m for m in METHODS if "calibrate" in m], ids=named)
def test_numbers_are_refused_to_be_calibrated_by_name(method: dict):
    with pytest.raises(UnsupportedError, match=rf"{method['name']}: calibrate.*leave calibrate out"):
        fusion(method).check(simulated("value")[0])


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
