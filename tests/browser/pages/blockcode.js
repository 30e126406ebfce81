// The clock in the picture, read back: 64 black/white cells across the top of every test frame.
// The painter is tests/picture/blockcode.py; probe.js calls this with pixels of a <canvas>.
//
// Left to right, most significant bit first: 8 sync (0xB2) | 40 time in ms (mod 2^40) | 8 tag | 8 CRC-8 (poly 0x07, over time and tag).
// The band is max(8, H/18) pixels high and its cells W/64 wide, so the code survives scaling.

export const CELLS = 64;
export const CLOCK_MODULUS = 2 ** 40;
const SYNC = 0xb2;
const MID_GREY = 125;

/** Height in pixels of the code band in a picture `height` pixels high. */
export function bandHeight(height) {
  return Math.max(8, Math.floor(height / 18));
}

export function crc8(bytes) {
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : (crc << 1) & 0xff;
  }
  return crc;
}

/**
 * Reads the code from rows cut out of the middle of the band.
 * @param {Uint8ClampedArray|number[]} rgba `width * rows` pixels, four bytes each
 * @returns {{ms: number, tag: number} | null} null when the sync byte or the checksum is wrong
 */
export function decode(rgba, width, rows) {
  const reach = Math.max(1, Math.floor(width / CELLS / 6));
  const bytes = new Uint8Array(8);
  for (let cell = 0; cell < CELLS; cell++) {
    const centre = Math.floor(((cell + 0.5) * width) / CELLS);
    const from = Math.max(0, centre - reach);
    const to = Math.min(width - 1, centre + reach);
    let sum = 0;
    for (let row = 0; row < rows; row++) {
      for (let x = from; x <= to; x++) sum += rgba[(row * width + x) * 4 + 1]; // green stands for luma: the band is grey
    }
    const bright = sum / (rows * (to - from + 1)) > MID_GREY;
    bytes[cell >> 3] = (bytes[cell >> 3] << 1) | (bright ? 1 : 0);
  }
  if (bytes[0] !== SYNC || crc8(bytes.subarray(1, 7)) !== bytes[7]) return null;
  // 40 bits do not fit JavaScript's 32-bit shifts.
  const ms = bytes.subarray(1, 6).reduce((value, byte) => value * 256 + byte, 0);
  return { ms, tag: bytes[6] };
}

/**
 * Milliseconds between the moment painted into a frame and `nowMs` (Unix time).
 * A live source paints Unix time modulo 2^40. A looped clip paints its own time: the frame with clip time t leaves
 * when Unix time modulo `loopMs` is t.
 */
export function ageOf(codeMs, nowMs, loopMs) {
  const modulus = loopMs || CLOCK_MODULUS;
  return (((nowMs - codeMs) % modulus) + modulus) % modulus;
}
