from __future__ import annotations

import itertools
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlib.report import comparison, curves, matrices, palette, svg, words

THEMES = {
    "light": (palette.LIGHT, palette.BLUES_LIGHT, palette.ORANGES_LIGHT),
    "dark": (palette.DARK, palette.BLUES_DARK, palette.ORANGES_DARK),
}
finite = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))


# -- colours ---------------------------------------------------------------------------------------------


def test_contrast_is_what_the_standard_says_it_is():
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # WebAIM's example: just fails AA


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("text", ["ink", "soft", "accent", "warn"])
def test_text_can_be_read_on_every_background_it_stands_on(theme: str, text: str):
    colours = THEMES[theme][0]
    assert all(palette.contrast(colours[text], colours[ground]) >= 4.5 for ground in ("paper", "raised", "wash"))


@pytest.mark.parametrize("theme", THEMES)
def test_marks_stand_out_from_the_paper(theme: str):
    colours = THEMES[theme][0]
    assert all(palette.contrast(colours[mark], colours["paper"]) >= 3 for mark in ("edge", "accent", "warn"))


@pytest.mark.parametrize("theme", THEMES)
def test_numbers_can_be_read_on_every_shade_of_heat(theme: str):
    colours, *ramps = THEMES[theme]
    shades = [shade for ramp in ramps for shade in ramp]
    assert all(palette.contrast(shade, palette.text_on(shade, colours)) >= 4.5 for shade in shades)


@pytest.mark.parametrize("theme", THEMES)
def test_a_stronger_shade_stands_out_more(theme: str):
    colours, *ramps = THEMES[theme]
    for ramp in ramps:
        strength = [palette.contrast(shade, colours["paper"]) for shade in ramp]
        assert strength == sorted(strength)


def dichromat(colour: str) -> tuple[float, float, float]:
    """What a deuteranope sees: Machado et al. (2009), doi:10.1109/TVCG.2009.113, table 1, severity 1."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return (
        0.367322 * red + 0.860646 * green - 0.227968 * blue,
        0.280085 * red + 0.672501 * green + 0.047413 * blue,
        -0.011820 * red + 0.042940 * green + 0.968881 * blue,
    )


@pytest.mark.parametrize("theme", THEMES)
def test_right_and_wrong_differ_for_colour_blind_eyes(theme: str):
    colours = THEMES[theme][0]
    right, wrong = dichromat(colours["accent"]), dichromat(colours["warn"])
    assert sum((a - b) ** 2 for a, b in zip(right, wrong, strict=True)) ** 0.5 > 0.35


def test_something_is_never_drawn_as_nothing():
    assert palette.shade(0) == 0
    assert palette.shade(1e-6) == 1
    assert palette.shade(1) == palette.STEPS - 1


# -- scales and labels -----------------------------------------------------------------------------------


@given(finite, st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_round_few_and_within_the_scale(low: float, width: float, count: int):
    found = svg.ticks(low, low + width, count)
    values = [value for value, _ in found]
    assert 1 <= len(found) <= 2.6 * count
    assert all(low - width * 1e-6 <= v <= low + width * (1 + 1e-6) for v in values)


@given(st.lists(finite, max_size=8))
def test_a_span_has_a_width_and_holds_its_values(values: list[float]):
    low, high = svg.span(values)
    assert low < high
    assert all(low <= v <= high for v in values)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 100, ["0", "25", "50", "75", "100"]),
        (0.9, 1.0, ["0.900", "0.925", "0.950", "0.975", "1.000"]),
        (-1, 1, ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
        (0, 40_000, ["0", "10k", "20k", "30k", "40k"]),
    ],
)
def test_tick_labels_have_just_the_decimals_they_need(low: float, high: float, labels: list[str]):
    assert [label for _, label in svg.ticks(low, high, 4)] == labels


def test_labels_of_points_close_together_do_not_overlap():
    points = [(100.0 + 14 * i, 100.0 + 3 * (i % 2)) for i in range(6)]
    names = ["averaging", "weighted", "stacking", "voting", "greedy", "full"]
    placed = svg.place_labels(points, names, (0, 0, 400, 200))
    boxes = []
    for label, name in zip(placed, names, strict=True):
        width = svg.text_width(name)
        left = label.x - {"start": 0, "middle": width / 2, "end": width}[label.anchor]
        boxes.append((left, label.y - 10, left + width, label.y + 3))
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 2 or b[3] <= a[1] + 2


def test_a_clipped_text_fits_and_says_that_it_goes_on():
    assert svg.clip("short", 100) == "short"
    clipped = svg.clip("a label with a very long name", 90)
    assert clipped.endswith("…")
    assert svg.text_width(clipped) <= 90


def test_svg_elements_escape_what_they_hold():
    assert svg.text(1, 2, "<b>&") == '<text x="1" y="2">&lt;b&gt;&amp;</text>'
    assert 'aria-label="&#34;&gt;"' in svg.chart(1, 1, label='">')


# -- charts ----------------------------------------------------------------------------------------------


def point(name: str, cost: float, gain: float) -> comparison.Point:
    return comparison.Point(name, "fusion", False, cost, gain, (gain - 0.01, gain + 0.01))


@pytest.mark.parametrize("costs", [(4.0, 4.0, 4.0), (0.9, 0.93, 1.0, 1.0, 1.02), (1.0,)])
def test_models_at_one_place_are_set_side_by_side(costs: tuple[float, ...]):
    points = [point(f"m{i}", cost, 0.02) for i, cost in enumerate(costs)]
    drawn = comparison.gain_cost(points, metric="accuracy", reference="full", width=372)
    places = sorted(float(p.split('x1="')[1].split('"')[0]) for p in drawn.split("<line") if 'class="whisker' in p)
    assert len(places) == len(costs)
    assert all(b - a >= 13 for a, b in itertools.pairwise(places))


def test_the_best_step_is_the_marked_one_or_else_the_best_value():
    rows = [{"step": s, "epoch": s / 10, "validation_accuracy": v} for s, v in ((10, 0.7), (20, 0.9), (30, 0.9))]
    found = curves.course("full", rows, "accuracy", higher_is_better=True)
    assert found is not None
    assert found.best == (20, 0.9)
    rows[2]["validation_loss"], rows[1]["validation_loss"] = 0.1, 0.2
    assert curves.course("full", rows, "accuracy", higher_is_better=True).best == (30, 0.9)
    marked = [rows[0] | {"best": True}, *rows[1:]]
    assert curves.course("full", marked, "accuracy", higher_is_better=True).best == (10, 0.7)
    assert curves.course("full", rows, "accuracy", higher_is_better=False).best == (10, 0.7)


def test_a_member_without_history_has_no_curve():
    assert curves.course("full", [], "accuracy", higher_is_better=True) is None


@given(st.lists(finite, min_size=1, max_size=600))
def test_a_thinned_curve_keeps_its_ends_and_its_mean(values: list[float]):
    curve = [(float(i), v) for i, v in enumerate(values)]
    thin = curves.thinned(curve, 100)
    assert len(thin) <= 100
    assert min(values) - 1e-6 <= min(v for _, v in thin) <= max(v for _, v in thin) <= max(values) + 1e-6


def test_smoothing_leaves_a_straight_line_as_it_is():
    line = [(float(i), 3.0 * i) for i in range(200)]
    assert [v for _, v in curves.smoothed(line)] == pytest.approx([v for _, v in line])


def test_frequent_mistakes_come_most_frequent_first():
    found = matrices.frequent_mistakes(("a", "b", "c"), [[8, 2, 0], [5, 5, 0], [1, 0, 9]])
    assert found == [("b", "a", 5, 0.5), ("a", "b", 2, 0.2), ("c", "a", 1, 0.1)]


def test_a_label_without_rows_does_not_break_the_matrix():
    drawn = matrices.confusion(("a", "b"), [[3, 1], [0, 0]], name="full", width=400)
    assert "a read as b: 1 (25 % of the row)" in drawn.replace(words.SPACE, " ")


# -- words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (0.0002, "less than once in 1,000 tries, which is very strong evidence that it is better."),
        (0.004, "about once in 250 tries, which is strong evidence that it is better."),
        (0.04, "about once in 25 tries, which is good evidence that it is better."),
        (0.12, "about 1 time in 10, so this is a hint, not proof."),
        (0.43, "about 4 times in 10, so the two cannot be told apart on these rows."),
        (1.0, "nearly every time, so the two cannot be told apart on these rows."),
    ],
)
def test_a_p_value_is_said_in_words(p: float, said: str):
    assert words.evidence(p, better=True).endswith(said)


@pytest.mark.parametrize(
    ("function", "given", "shown"),
    [
        (words.number, 0.5, "0.500"),
        (words.number, -0.0001, "0.000"),
        (words.number, float("nan"), "–"),
        (words.number, None, "–"),
        (words.signed, 0.0123, "+0.012"),
        (words.signed, -0.0123, "−0.012"),
        (words.signed, 0.0001, "±0"),
        (words.percent, 0.0, "0 %"),
        (words.percent, 0.0001, "<0.1 %"),
        (words.percent, 0.043, "4.3 %"),
        (words.percent, 0.9996, ">99.9 %"),
        (words.percent, 1.0, "100 %"),
        (partial(words.percent, decimals=0), 0.003, "<1 %"),
        (words.times, 3.66, "3.7×"),
        (words.times, 12.2, "12×"),
        (words.large, 22_713_728, "22.7 M"),
        (words.large, 950, "950"),
        (words.duration, 3.21, "3.2 s"),
        (words.duration, 250, "4 min 10 s"),
        (words.duration, 7500, "2 h 5 min"),
        (words.energy, 0.0064, "6.4 Wh"),
        (words.mass, 1.25, "1.2 kg"),
        (words.p_phrase, 0.0004, "p < 0.001"),
        (words.p_phrase, 0.032, "p = 0.032"),
    ],
)
def test_numbers_are_shown_as_people_write_them(function, given, shown: str):
    assert function(given).replace(words.SPACE, " ") == shown


def test_lists_are_joined_as_in_speech():
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.listed(["a", "b", "c", "d"], 3) == "a, b and 2 more"
