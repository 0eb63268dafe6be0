"""A line plot as SVG: shares over a number between 0 and 1."""

from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 140, 20, 44
TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
INKS = ("#d7282d", "#2850d7", "#289641")
GRAY = "#888888"


def plot(lines: Mapping[str, Points], across: str, up: str) -> str:
    """The lines over labelled axes, with their names beside them."""
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="sans-serif" font-size="12" fill="{GRAY}">',
            *_axes(across, up),
            *(
                _line(name, points, ink, place)
                for place, ((name, points), ink) in enumerate(
                    zip(lines.items(), INKS, strict=False)
                )
            ),
            "</svg>\n",
        )
    )


def _axes(across: str, up: str) -> list[str]:
    right, turned = _x(1), f"translate(14 {_y(0.5):.0f}) rotate(-90)"
    marks = []
    for tick in TICKS:
        marks += [
            f'<path d="M{_x(0):.0f} {_y(tick):.0f}H{right:.0f}" stroke="{GRAY}" opacity=".3"/>',
            f'<text x="{_x(0) - 8:.0f}" y="{_y(tick) + 4:.0f}" text-anchor="end">{tick}</text>',
            f'<text x="{_x(tick):.0f}" y="{_y(0) + 16:.0f}" text-anchor="middle">{tick}</text>',
        ]
    return [
        *marks,
        f'<text x="{_x(0.5):.0f}" y="{HEIGHT - 8}" text-anchor="middle">{across}</text>',
        f'<text transform="{turned}" text-anchor="middle">{up}</text>',
    ]


def _line(name: str, points: Points, ink: str, place: int) -> str:
    path = "L".join(f"{_x(x):.1f} {_y(y):.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="3"/>' for x, y in points)
    label = f'<text x="{_x(1) + 12:.0f}" y="{TOP + 4 + 18 * place}">{name}</text>'
    return (
        f'<g fill="{ink}"><path d="M{path}" fill="none" stroke="{ink}" stroke-width="2"/>'
        f"{dots}{label}</g>"
    )


def _x(value: float) -> float:
    return LEFT + value * (WIDTH - LEFT - RIGHT)


def _y(value: float) -> float:
    return HEIGHT - BOTTOM - value * (HEIGHT - TOP - BOTTOM)
