"""The report's colours, in both themes. Blue is right or chosen, orange is wrong or lost, the rest is grey.

Two hues carry every meaning, and they are the pair that people with any kind of colour blindness tell apart
(Okabe & Ito (2008), "Color Universal Design", https://jfly.uni-koeln.de/color/). Marks differ in shape too, so
no meaning hangs on colour alone. Text keeps a contrast of 4.5 to 1 and marks 3 to 1 (WCAG 2.2, criteria 1.4.3
and 1.4.11); a test computes both.
"""

from __future__ import annotations

Theme = dict[str, str]

STEPS = 9
"""Shades of a heat ramp, from none (0) to all (8)."""

LIGHT: Theme = {
    "paper": "#fcfbf9",
    "raised": "#ffffff",
    "sunken": "#f4f2ee",
    "ink": "#1d2126",
    "soft": "#565d66",
    "line": "#e5e1da",
    "edge": "#7c828a",
    "accent": "#0a5fa5",
    "wash": "#e7f0f8",
    "warn": "#ad4500",
    "warn-wash": "#fbeade",
    "ghost": "#c3c5c8",
}

DARK: Theme = {
    "paper": "#14171b",
    "raised": "#1a1e23",
    "sunken": "#20252b",
    "ink": "#e9e7e2",
    "soft": "#a4abb4",
    "line": "#2f353c",
    "edge": "#7d858f",
    "accent": "#6db6f2",
    "wash": "#1a2f41",
    "warn": "#f59a55",
    "warn-wash": "#3b2718",
    "ghost": "#4a5159",
}

BLUES_LIGHT = ("#f6f5f2", "#e6eef5", "#cfe0ef", "#b1cee7", "#8db8db", "#68a0cd", "#2f73b0", "#175a97", "#0a417a")
BLUES_DARK = ("#1b1f24", "#1c2935", "#1d3346", "#1f4059", "#224d6d", "#265c84", "#2b6896", "#5499d0", "#7db8e8")
ORANGES_LIGHT = ("#f6f5f2", "#fbece1", "#f9dac5", "#f4c09d", "#eda374", "#e28649", "#b54f0c", "#943e05", "#732e02")
ORANGES_DARK = ("#1b1f24", "#2d2520", "#3d2e20", "#50371f", "#66421f", "#7a4d20", "#8f5823", "#df8f49", "#efab70")


def css() -> str:
    """Return the custom properties of both themes as CSS; printing is always light."""
    light, dark = _properties(LIGHT, BLUES_LIGHT, ORANGES_LIGHT), _properties(DARK, BLUES_DARK, ORANGES_DARK)
    return "\n".join(
        [
            f":root{{color-scheme:light;{light}}}",
            f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}",
            f":root[data-theme=dark]{{color-scheme:dark;{dark}}}",
            f"@media print{{:root:root:root{{color-scheme:light;{light}}}}}",
            *_heat_classes(),
        ]
    )


def text_on(colour: str, theme: Theme) -> str:
    """Return the text colour for a background: the theme's ink, or its paper where ink would be hard to read."""
    choices = (theme["ink"], theme["paper"], "#ffffff", "#000000")
    return next((c for c in choices if contrast(colour, c) >= 4.5), max(choices, key=lambda c: contrast(colour, c)))


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours, from 1 to 21.

    WCAG 2.2, "contrast ratio", https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio.
    """
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def shade(share: float) -> int:
    """Return the step of a heat ramp for a share in [0, 1]; anything above none gets a visible one."""
    if share <= 0:
        return 0
    return max(1, min(STEPS - 1, round(share * (STEPS - 1))))


def _properties(theme: Theme, blues: tuple[str, ...], oranges: tuple[str, ...]) -> str:
    pairs = list(theme.items())
    for name, ramp in (("b", blues), ("o", oranges)):
        pairs += [(f"{name}{i}", colour) for i, colour in enumerate(ramp)]
        pairs += [(f"{name}{i}t", text_on(colour, theme)) for i, colour in enumerate(ramp)]
    return "".join(f"--{name}:{value};" for name, value in pairs)


def _heat_classes() -> list[str]:
    names = [f"{ramp}{i}" for ramp in "bo" for i in range(STEPS)]
    return [
        f".{n}{{background:var(--{n});color:var(--{n}t);fill:var(--{n})}}.chart text.{n}{{fill:var(--{n}t)}}"
        for n in names
    ]


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
