"""The block code: a clock that machines read off a picture.

64 black and white cells across the top of the picture carry a millisecond counter. The geometry is relative to the
picture, so it survives scaling: the band is H/18 high and each cell W/64 wide. Bits from left to right, most
significant first:

    8 sync (0xB2) | 40 time in ms (mod 2**40) | 8 tag | 8 CRC-8 (polynomial 0x07) over the 48 bits before it

Cells are painted at luma 16 and 235; a decoder reads the middle of each cell against the mid grey. The player page
holds the same decoder in JavaScript (edge/player/player.js).
"""

import numpy as np

SYNC = 0xB2
CELLS = 64
TIME_MASK = (1 << 40) - 1


def crc8(data):
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 0x07) & 0xFF if crc & 0x80 else (crc << 1) & 0xFF
    return crc


def word(ms, tag=0):
    """The eight bytes that the band carries."""
    body = int(ms & TIME_MASK).to_bytes(5, "big") + bytes([tag & 0xFF])
    return bytes([SYNC]) + body + bytes([crc8(body)])


def band_height(height):
    """Rows of the band in a picture of `height` rows."""
    return max(8, height // 18)


def paint(luma, ms, tag=0):
    """Paints the band into a luma plane (H, W) of uint8, in place."""
    height, width = luma.shape
    bits = np.unpackbits(np.frombuffer(word(ms, tag), dtype=np.uint8))
    row = np.where(bits[(np.arange(width) * CELLS) // width] > 0, 235, 16).astype(np.uint8)
    luma[: band_height(height), :] = row


def decode(luma):
    """Reads the band of a luma plane: (ms, tag), or None when there is none to be read."""
    height, width = luma.shape
    rows = band_height(height)
    top, bottom = rows // 3, max(rows // 3 + 1, 2 * rows // 3)
    band = luma[top:bottom, :].astype(np.float32).mean(axis=0)
    centres = ((np.arange(CELLS) + 0.5) * width / CELLS).astype(int)
    reach = max(1, width // CELLS // 6)
    cells = np.array([band[max(0, c - reach) : c + reach + 1].mean() for c in centres])
    data = np.packbits((cells > 125).astype(np.uint8)).tobytes()
    if data[0] != SYNC or crc8(data[1:7]) != data[7]:
        return None
    return int.from_bytes(data[1:6], "big"), data[6]
