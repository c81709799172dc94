"""Colours of the synthetic world, 0..255 RGB, and the two operations on them."""

Number = int | float
Color = tuple[Number, Number, Number]

SKIN_TONES: tuple[Color, ...] = (  # light to deep; identities lie anywhere along this path
    (255, 226, 204),
    (246, 204, 172),
    (229, 178, 138),
    (203, 146, 102),
    (162, 106, 70),
    (116, 72, 48),
    (82, 50, 38),
)
NATURAL_HAIR: tuple[Color, ...] = (
    (26, 22, 28),
    (64, 40, 28),
    (108, 66, 36),
    (136, 50, 28),
    (212, 100, 34),
    (170, 124, 68),
    (230, 188, 100),
    (240, 226, 194),
)
EYE_COLORS: tuple[Color, ...] = (
    (70, 38, 20),
    (178, 104, 26),
    (108, 132, 44),
    (30, 150, 92),
    (36, 112, 214),
    (112, 188, 232),
    (128, 138, 150),
)
TATTOO_COLORS: tuple[Color, ...] = (
    (28, 32, 60),
    (20, 80, 160),
    (190, 30, 50),
    (16, 120, 90),
)
DYES: dict[str, Color] = {
    "blue": (48, 108, 236),
    "green": (44, 178, 92),
    "pink": (246, 112, 180),
    "purple": (142, 70, 206),
    "red": (216, 26, 46),
}
FABRICS: dict[str, Color] = {
    "red": (204, 46, 52),
    "orange": (238, 134, 42),
    "yellow": (244, 206, 70),
    "green": (60, 146, 84),
    "blue": (52, 98, 196),
    "purple": (122, 74, 172),
    "pink": (240, 148, 180),
    "brown": (126, 84, 56),
    "black": (40, 40, 46),
    "gray": (146, 150, 158),
    "white": (240, 240, 236),
}
GREY_HAIR: Color = (206, 206, 210)
WHITE: Color = (255, 255, 255)
INK: Color = (28, 22, 26)


def mix(a: Color, b: Color, t: float) -> Color:
    """Goes from `a` (t = 0) to `b` (t = 1) in a straight line."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def scale(color: Color, factor: float) -> Color:
    """Darkens (factor < 1) or brightens (factor > 1) a colour, staying within 0..255."""
    r, g, b = color
    return (min(255.0, r * factor), min(255.0, g * factor), min(255.0, b * factor))


def along(path: tuple[Color, ...], t: float) -> Color:
    """The colour a fraction `t` in [0, 1) of the way along a path of colours."""
    position = t * (len(path) - 1)
    index = min(int(position), len(path) - 2)
    return mix(path[index], path[index + 1], position - index)
