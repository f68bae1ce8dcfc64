# SPDX-License-Identifier: GPL-2.0
"""Plots of curves as SVG, in panels next to each other."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 400, 300
LEFT, RIGHT, TOP, BOTTOM = 78, 14, 52, 46
COLOURS = ["#b5501b", "#1b6ab5", "#3d8b37", "#7a3db5"]


class Plot:
    """Curves over one kind of axes; the vertical one is logarithmic."""

    def __init__(self, title, x, y, log_x=False):
        self.title, self.x, self.y, self.log_x = title, x, y, log_x
        self.panels = []

    def panel(self, title):
        self.panels.append((title, []))

    def curve(self, name, points):
        """Adds a curve, a list of pairs, to the last panel."""
        if points:
            self.panels[-1][1].append((name, points))

    def drawn(self):
        """The panels that have curves."""
        return [panel for panel in self.panels if panel[1]]

    def __bool__(self):
        return bool(self.drawn())

    def svg(self):
        width = WIDTH * len(self.drawn())
        body = "\n".join(self.draw(n, *panel) for n, panel in enumerate(self.drawn()))
        return (
            "<!-- SPDX-License-Identifier: GPL-2.0 -->\n"
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
            f'width="{width}" height="{HEIGHT}" font-family="sans-serif" font-size="12">\n'
            f'<rect width="{width}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
        )

    def draw(self, number, title, curves):
        xs = [x for _, points in curves for x, _ in points]
        ys = [y for _, points in curves for _, y in points]
        x_at = axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, self.log_x)
        # Whole powers of two, so that the curves have air above and below.
        low, high = 2 ** math.floor(math.log2(min(ys))), 2 ** math.ceil(math.log2(max(ys)))
        y_at = axis(low, max(high, 2 * low), HEIGHT - BOTTOM, TOP, True)
        parts = [f'<g transform="translate({number * WIDTH} 0)">']
        parts.append(text(WIDTH / 2, 18, f"{self.title}, {title}", "middle", 'font-weight="bold"'))
        for x in powers(min(xs), max(xs)) if self.log_x else range(0, 101, 20):
            if min(xs) <= x <= max(xs) or not self.log_x:
                at = x_at(min(max(x, min(xs)), max(xs)))
                parts.append(line(at, TOP, at, HEIGHT - BOTTOM))
                parts.append(text(at, HEIGHT - BOTTOM + 16, f"{x:g}", "middle"))
        for y in powers(low, max(high, 2 * low)):
            parts.append(line(LEFT, y_at(y), WIDTH - RIGHT, y_at(y)))
            parts.append(text(LEFT - 6, y_at(y) + 4, f"{y:g}", "end"))
        parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, self.x, "middle"))
        turn = f'transform="rotate(-90 16 {HEIGHT / 2})"'
        parts.append(text(16, HEIGHT / 2, self.y, "middle", turn))
        for (name, points), colour, n in zip(curves, COLOURS, range(len(curves))):
            path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts.append(text(LEFT + 8 + 70 * n, TOP - 12, f"— {name}", "start", f'fill="{colour}"'))
        return "\n".join([*parts, "</g>"])


def axis(low, high, start, end, logarithmic):
    """The way from values to places."""
    scale = math.log2 if logarithmic else float
    span = (scale(high) - scale(low)) or 1
    return lambda value: start + (scale(value) - scale(low)) / span * (end - start)


def powers(low, high):
    return [2**n for n in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]


def line(x1, y1, x2, y2):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def text(x, y, words, anchor, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>'
