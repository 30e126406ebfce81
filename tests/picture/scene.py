"""The demo picture: night water running over a weir, the name, and a clock that a person can read.

Everything that moves repeats after `period` seconds exactly, so the clip can be looped without a visible joint.
The letters and digits are our own: strokes drawn by distance, so that they are smooth at any size.
"""

import numpy as np

import blockcode


def _arc(cx, cy, rx, ry, start, end, steps=24):
    """Points of an ellipse's arc; angles in degrees, 0 = right, 90 = down."""
    a = np.radians(np.linspace(start, end, steps))
    return list(zip(cx + rx * np.cos(a), cy + ry * np.sin(a)))


# Glyphs: (width, strokes) in a box of height 1, y downwards. A stroke of one point is a dot.
_SIX = [_arc(0.28, 0.69, 0.28, 0.31, 0, 360), _arc(0.5, 0.69, 0.5, 0.69, 180, 262)]
GLYPHS = {
    "0": (0.56, [_arc(0.28, 0.5, 0.28, 0.5, 0, 360, 40)]),
    "1": (0.56, [[(0.1, 0.2), (0.34, 0.0), (0.34, 1.0)]]),
    "2": (0.56, [_arc(0.28, 0.28, 0.28, 0.28, 185, 395) + [(0.0, 1.0), (0.56, 1.0)]]),
    "3": (0.56, [_arc(0.27, 0.245, 0.26, 0.245, 200, 450), _arc(0.27, 0.745, 0.29, 0.255, 270, 520)]),
    "4": (0.56, [[(0.43, 1.0), (0.43, 0.0), (0.0, 0.7), (0.58, 0.7)]]),
    "5": (0.56, [[(0.51, 0.0), (0.09, 0.0), (0.05, 0.46)] + _arc(0.27, 0.68, 0.29, 0.32, 225, 500)]),
    "6": (0.56, _SIX),
    "7": (0.56, [[(0.0, 0.0), (0.56, 0.0), (0.2, 1.0)]]),
    "8": (0.56, [_arc(0.28, 0.245, 0.235, 0.245, 0, 360), _arc(0.28, 0.745, 0.28, 0.255, 0, 360)]),
    "9": (0.56, [[(0.56 - x, 1.0 - y) for x, y in stroke] for stroke in _SIX]),
    ":": (0.12, [[(0.06, 0.3)], [(0.06, 0.8)]]),
    ".": (0.12, [[(0.06, 1.0)]]),
    "w": (0.76, [[(0.0, 0.35), (0.19, 1.0), (0.38, 0.42), (0.57, 1.0), (0.76, 0.35)]]),
    "e": (0.6, [[(0.0, 0.675), (0.6, 0.675)] + _arc(0.3, 0.675, 0.3, 0.325, 0, -318, 40)]),
    "i": (0.1, [[(0.05, 0.35), (0.05, 1.0)], [(0.05, 0.06)]]),
    "r": (0.4, [[(0.05, 0.35), (0.05, 1.0)], _arc(0.33, 0.64, 0.28, 0.29, 180, 300)]),
}


def glyph(char, size, stroke):
    """An antialiased mask (float 0..1) of `char`, `size` pixels high, with a margin of one stroke all round."""
    width, strokes = GLYPHS[char]
    columns, rows = int(width * size + 2 * stroke) + 2, int(size + 2 * stroke) + 2
    x = np.arange(columns, dtype=np.float32)[None, :] - stroke
    y = np.arange(rows, dtype=np.float32)[:, None] - stroke
    nearest = np.full((rows, columns), 1e9, np.float32)
    for points in strokes:
        points = [(px * size, py * size) for px, py in points]
        for (ax, ay), (bx, by) in zip(points, points[1:] or points):
            dx, dy = bx - ax, by - ay
            along = ((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-9)
            along = np.clip(along, 0, 1)
            nearest = np.minimum(nearest, np.hypot(x - ax - along * dx, y - ay - along * dy))
    dot = 1.35 if all(len(points) == 1 for points in strokes) else 1.0
    return np.clip(stroke * 0.5 * dot - nearest + 0.5, 0, 1)


class Text:
    """Masks of one size, made once per character."""

    def __init__(self, size, stroke, spacing):
        self.size, self.stroke, self.spacing, self.masks = size, stroke, spacing, {}

    def width(self, text):
        return sum(GLYPHS[c][0] * self.size + self.spacing for c in text) - self.spacing

    def draw(self, rgb, text, left, top, colour):
        for char in text:
            if char not in self.masks:
                self.masks[char] = glyph(char, self.size, self.stroke)
            mask = self.masks[char]
            rows, columns = mask.shape
            y, x = int(top - self.stroke), int(left - self.stroke)
            blend(rgb[y : y + rows, x : x + columns], mask, colour)
            left += GLYPHS[char][0] * self.size + self.spacing
        return left


def blend(area, mask, colour):
    area += (np.asarray(colour, np.float32) - area) * mask[..., None]


def to_yuv420(rgb):
    """RGB 0..255 (float) to limited-range BT.709 planes: (Y, U, V)."""
    r, g, b = rgb[..., 0] / 255, rgb[..., 1] / 255, rgb[..., 2] / 255
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b

    def halved(plane):
        return (plane[0::2, 0::2] + plane[1::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 1::2]) / 4

    u, v = halved((b - luma) / 1.8556), halved((r - luma) / 1.5748)
    as_bytes = lambda plane: np.clip(np.rint(plane), 0, 255).astype(np.uint8)
    return as_bytes(16 + 219 * luma), as_bytes(128 + 224 * u), as_bytes(128 + 224 * v)


class Scene:
    """Paints the demo picture. `period`: seconds after which everything repeats."""

    WHITE, AMBER, TEAL = (240, 248, 250), (255, 190, 92), (94, 220, 208)
    # (height of the crest, amplitude, waves across the picture, cycles per period, colour)
    LAYERS = [
        (0.66, 0.020, 2.0, 3, (18, 62, 92)),
        (0.72, 0.024, 1.5, 4, (22, 88, 118)),
        (0.79, 0.022, 2.5, 6, (28, 116, 140)),
        (0.87, 0.018, 3.0, 8, (44, 150, 162)),
    ]

    def __init__(self, width, height, period, tag=0):
        self.width, self.height, self.period, self.tag = width, height, period, tag
        unit = height / 720
        self.unit = unit
        self.big, self.small = Text(150 * unit, 17 * unit, 34 * unit), Text(96 * unit, 12 * unit, 24 * unit)
        self.name = Text(84 * unit, 11 * unit, 26 * unit)
        fall = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        self.sky = np.broadcast_to(
            np.array([9, 16, 36], np.float32) * (1 - fall) + np.array([20, 58, 84], np.float32) * fall,
            (height, width, 3),
        ).copy()
        self.x = np.linspace(0, 1, width, dtype=np.float32)
        self.band = blockcode.band_height(height)
        self.end_clock = self.big.width("00:00") + 34 * unit + self.small.width(".000")

    def frame(self, ms, _number=0):
        """One picture as yuv420p bytes; `ms` is the time on the clock and in the block code."""
        rgb = self.sky.copy()
        self._water(rgb, ms / 1000)
        self._name(rgb)
        self._clock(rgb, ms)
        self._lamp(rgb, ms)
        self._progress(rgb, ms)
        luma, u, v = to_yuv420(rgb)
        blockcode.paint(luma, ms, self.tag)
        chroma = self.band // 2 + 1
        u[:chroma], v[:chroma] = 128, 128
        return luma.tobytes() + u.tobytes() + v.tobytes()

    def _water(self, rgb, seconds):
        phase = 2 * np.pi * seconds / self.period
        for crest, amplitude, waves, cycles, colour in self.LAYERS:
            swell = np.sin(2 * np.pi * waves * self.x - cycles * phase)
            ripple = 0.35 * np.sin(2 * np.pi * (2 * waves + 1) * self.x - 2 * cycles * phase + crest * 20)
            surface = (crest + amplitude * (swell + ripple)) * self.height
            top = int(surface.min()) - 2
            rows = np.arange(top, self.height, dtype=np.float32)[:, None]
            depth = rows - surface[None, :]
            blend(rgb[top:], np.clip(depth + 0.5, 0, 1) * 0.82, colour)
            foam = np.clip(1.6 * self.unit - np.abs(depth - self.unit), 0, 1)      # a bright line along the surface
            blend(rgb[top:], foam * 0.35, self.TEAL)

    def _name(self, rgb):
        self.name.draw(rgb, "weir", 70 * self.unit, self.band + 44 * self.unit, self.WHITE)

    def _clock(self, rgb, ms):
        text = f"{ms // 60000:02d}:{ms // 1000 % 60:02d}"
        top = 250 * self.unit
        left = self.big.draw(rgb, text, (self.width - self.end_clock) / 2, top, self.WHITE)
        fraction = f".{ms % 1000:03d}"
        self.small.draw(rgb, fraction, left, top + (self.big.size - self.small.size), self.TEAL)

    def _lamp(self, rgb, ms):
        """A ring that fills once a second around a lamp that is lit with the beep."""
        radius, thick = 46 * self.unit, 9 * self.unit
        cx, cy = self.width - 130 * self.unit, self.band + 90 * self.unit
        reach = int(radius + thick)
        top, left = int(cy) - reach, int(cx) - reach
        area = rgb[top : top + 2 * reach, left : left + 2 * reach]
        dy = np.arange(top, top + 2 * reach, dtype=np.float32)[:, None] - cy
        dx = np.arange(left, left + 2 * reach, dtype=np.float32)[None, :] - cx
        distance = np.hypot(dx, dy)
        ring = np.clip(thick / 2 - np.abs(distance - radius) + 0.5, 0, 1)
        turn = np.mod(np.arctan2(dx, -dy) / (2 * np.pi), 1.0)
        blend(area, ring * 0.25, self.WHITE)
        blend(area, ring * (turn <= (ms % 1000) / 1000), self.TEAL)
        lit = max(0.0, 1 - (ms % 1000) / 200)
        blend(area, np.clip(22 * self.unit - distance + 0.5, 0, 1) * (0.15 + 0.85 * lit), self.AMBER)

    def _progress(self, rgb, ms):
        """A thin line below the band: how much of the loop has gone by."""
        done = int(self.width * (ms % (self.period * 1000)) / (self.period * 1000))
        rows = slice(self.band, self.band + max(2, int(5 * self.unit)))
        rgb[rows, :done] = self.TEAL
