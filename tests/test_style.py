from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from refusal.style import INK, UNDEFINED, colour_of, ink_on, inline_svg, scale, styled


def luminance(colour: str) -> float:
    """WCAG 2 relative luminance, written out once more."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True)
    )


def test_the_scale_darkens_all_the_way_so_that_it_reads_without_hue():
    values = [luminance(colour_of(i / 20)) for i in range(21)]
    assert values == sorted(values, reverse=True)


def test_values_beyond_the_scale_take_its_ends_and_undefined_is_grey():
    assert colour_of(1.4) == colour_of(1.0)
    assert colour_of(-0.3) == colour_of(0.0)
    assert colour_of(None) == UNDEFINED
    assert UNDEFINED not in {colour_of(i / 100) for i in range(101)}
    assert scale().get_bad()[0] == pytest.approx(int(UNDEFINED[1:3], 16) / 255)


@pytest.mark.parametrize("value", [None, *[i / 20 for i in range(21)]])
def test_ink_can_be_read_on_every_colour(value: float | None):
    paper, ink = luminance(colour_of(value)), luminance(ink_on(colour_of(value)))
    assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) >= 4.5  # WCAG AA


def test_svg_follows_the_theme_and_is_the_same_twice():
    def draw() -> str:
        with styled():
            figure = Figure(figsize=(2, 1))
            figure.subplots().plot([0, 1], color=INK)
        return inline_svg(figure, 'a "label" <b>')

    svg = draw()
    assert svg == draw()
    assert "var(--ink)" in svg
    assert INK not in svg
    assert svg.startswith('<svg role="img" aria-label="a &#34;label&#34; &lt;b&gt;" viewBox=')
