"""Metrics of generated texts, against what sacrebleu, rouge-score and nltk say."""

from __future__ import annotations

from random import Random

import numpy as np
import pyarrow as pa
import pytest
import sacrebleu

from ftlib.errors import DataError, ParamsError
from ftlib.evaluation.measures import check_metric, measure, value_of
from ftlib.targets import text_metrics
from ftlib.targets.layout import Layout
from ftlib.targets.text_metrics import Measuring, likeness
from ftlib.targets.texts import Texts, candidates

WORDS = ("the", "a", "dog", "cat", "runs", "sleeps", "in", "park", "Big", "old", ",", ".", "Über", "3.5", "(maybe)")


def text(random: Random) -> str:
    return " ".join(random.choice(WORDS) for _ in range(random.randint(0, 9)))


def example(num_rows: int = 25, seed: int = 0, **measuring: object) -> tuple[Texts, np.ndarray, np.ndarray, list[str]]:
    """Return a target over candidates, one member's scores, the references and the gold texts."""
    random = Random(seed)
    gold = [text(random) or "a dog" for _ in range(num_rows)]
    member = []
    for wanted in gold:
        texts = list(dict.fromkeys([wanted[: random.randint(1, 30)].strip(), text(random), text(random)]))
        member.append((texts, [random.random() for _ in texts]))
    scores, layout = candidates([member])
    target = Texts(measuring=Measuring(**measuring)).over(layout)  # type: ignore[arg-type]
    return target, scores[0], target.encode(pa.array(gold)), gold


@pytest.mark.parametrize("tokenizer", ["13a", "intl", "zh", "char", "none"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_and_chrf_of_summed_counts_are_sacrebleus_own(tokenizer: str, lowercase: bool) -> None:
    target, scores, references, gold = example(tokenizer=tokenizer, lowercase=lowercase)
    told = target.decode(scores)
    found = target.metrics(scores, references)
    bleu = sacrebleu.corpus_bleu(told, [gold], tokenize=tokenizer, lowercase=lowercase)
    chrf = sacrebleu.CHRF(lowercase=lowercase).corpus_score(told, [gold])
    assert found["bleu"] == bleu.score
    assert found["chrf"] == chrf.score


@pytest.mark.parametrize("metric", Texts().metric_names)
def test_every_metric_is_the_same_by_counts_of_rows_and_by_the_rows_themselves(metric: str) -> None:
    if metric == "meteor" and not text_metrics.has_wordnet():
        pytest.skip("nltk has no WordNet here")
    target, scores, references, _ = example()
    assert value_of(metric, scores, references, target) == target.metrics(scores, references)[metric]
    random = np.random.default_rng(1)
    drawn = random.integers(target.num_rows(references), size=40)
    counts = np.bincount(drawn, minlength=target.num_rows(references)).astype(float)[None]
    units = target.positions(drawn)
    alone = target.take(drawn).metrics(scores[units], references[units])[metric]
    assert measure(metric, scores, references, target)(counts)[0] == pytest.approx(alone, abs=1e-9)


def test_a_resamples_bleu_is_sacrebleus_of_the_resampled_corpus() -> None:
    target, scores, references, gold = example(30, seed=3)
    told = target.decode(scores)
    drawn = np.random.default_rng(2).integers(30, size=(20, 30))
    counts = np.stack([np.bincount(rows, minlength=30) for rows in drawn]).astype(float)
    expected = [sacrebleu.corpus_bleu([told[i] for i in rows], [[gold[i] for i in rows]]).score for rows in drawn]
    assert measure("bleu", scores, references, target)(counts).tolist() == expected


def test_rouge_and_meteor_are_the_libraries_means() -> None:
    from nltk.stem.porter import PorterStemmer
    from nltk.translate.meteor_score import single_meteor_score
    from rouge_score.rouge_scorer import RougeScorer

    target, scores, references, gold = example()
    told, found = target.decode(scores), target.metrics(scores, references)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name in ("rouge1", "rouge2", "rougeL"):
        expected = np.mean([scorer.score(g, t)[name].fmeasure for g, t in zip(gold, told, strict=True)])
        assert found[name] == pytest.approx(expected)

    class NoWordNet:
        def synsets(self, word: str) -> list[str]:
            return []

    cut = sacrebleu.BLEU().tokenizer

    def meteor(wanted: str, given: str) -> float:
        words = cut(wanted).split(), cut(given).split()
        return single_meteor_score(*words, stemmer=PorterStemmer(), wordnet=NoWordNet()) if all(words) else 0.0

    expected = np.mean([meteor(g, t) for g, t in zip(gold, told, strict=True)])
    assert found["meteor_exact_stem"] == pytest.approx(expected)


def test_meteor_with_synonyms_is_told_only_where_wordnet_is() -> None:
    target, scores, references, _ = example()
    assert ("meteor" in target.metrics(scores, references)) == text_metrics.has_wordnet()
    if not text_metrics.has_wordnet():
        with pytest.raises(ParamsError, match="meteor_exact_stem"):
            value_of("meteor", scores, references, target)


def test_an_unknown_metric_is_answered_with_the_near_ones() -> None:
    with pytest.raises(ParamsError, match="Did you mean 'rougeL'"):
        check_metric("rougel", Texts())


def test_likeness_is_each_librarys_sentence_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    texts = ["a red dog runs .", "the red dog sleeps .", "a cat", ""]
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            chrf = sacrebleu.sentence_chrf(one, [other]).score / 100
            bleu = sacrebleu.sentence_bleu(one, [other], use_effective_order=True).score / 100
            rouge = RougeScorer(["rougeL"], use_stemmer=True).score(other, one)["rougeL"].fmeasure
            assert likeness(texts, "chrf")[i, j] == pytest.approx(chrf)
            assert likeness(texts, "bleu")[i, j] == pytest.approx(bleu)
            assert likeness(texts, "rougeL")[i, j] == pytest.approx(rouge)


def test_quality_of_a_candidate_is_its_sentence_score_from_0_to_1() -> None:
    layout = Layout.of(np.array([2]), pa.table({"text": ["a dog runs", "a dog"]}))
    for quality, score in (("chrf", sacrebleu.sentence_chrf), ("bleu", sacrebleu.sentence_bleu)):
        target = Texts(measuring=Measuring(quality)).over(layout)  # type: ignore[arg-type]
        extra = {"use_effective_order": True} if quality == "bleu" else {}
        expected = [score(text, ["a dog runs"], **extra).score / 100 for text in ("a dog runs", "a dog")]
        assert target.encode(pa.array(["a dog runs"]))[:, 0] == pytest.approx(expected)


# -- the target ----------------------------------------------------------------------------------------


def test_a_member_alone_answers_with_its_best_text() -> None:
    scores, layout = candidates([[(["b", "a", "c"], [0.5, 0.3, 0.2]), (["x"], [0.1])]])
    assert Texts().over(layout).decode(scores[0]) == ["b", "x"]


def test_the_order_of_members_changes_nothing_but_the_order_of_their_scores() -> None:
    random = Random(5)
    members = []
    for _ in range(3):
        member = [(texts := list({text(random) for _ in range(3)}), [random.random() for _ in texts]) for _ in range(9)]
        members.append(member)
    scores, layout = candidates(members)
    turned, other = candidates(members[::-1])
    assert layout.units is not None
    assert layout.units.equals(other.units)
    assert (scores == turned[::-1]).all()


def test_texts_that_one_member_lacks_have_no_support_by_it() -> None:
    scores, layout = candidates([[(["a", "b"], [0.6, 0.4])], [(["b", "c"], [0.9, 0.1])]])
    assert layout.units is not None
    assert layout.units["text"].to_pylist() == ["b", "a", "c"]
    assert scores[..., 0].tolist() == [[0.4, 0.6, 0.0], [0.9, 0.0, 0.1]]


def test_gold_texts_are_read_trimmed_and_empty_ones_refused() -> None:
    texts, reasons = Texts().parse(pa.array([" a dog ", "", None, "  "]))
    assert texts.to_pylist() == ["a dog", None, None, None]
    assert [bool(reason) for reason in reasons.to_pylist()] == [False, True, True, True]
    assert Texts().parse(pa.array([["a"], ["b"]]))[1].null_count == 0
    layout = Layout.of(np.array([1]), pa.table({"text": ["a"]}))
    with pytest.raises(DataError):
        Texts().over(layout).encode(pa.array([None], pa.string()))
