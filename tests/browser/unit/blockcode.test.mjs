// The JavaScript reader against codes painted here the way tests/picture/blockcode.py paints them.
import assert from "node:assert/strict";
import test from "node:test";
import { ageOf, bandHeight, CELLS, CLOCK_MODULUS, crc8, decode } from "../pages/blockcode.js";

function painted(ms, tag, width, rows, { white = 235, black = 16 } = {}) {
  const body = [...Array(5).keys()].map((i) => Math.floor(ms / 256 ** (4 - i)) % 256).concat(tag);
  const bits = [0xb2, ...body, crc8(body)].flatMap((byte) => [...byte.toString(2).padStart(8, "0")].map(Number));
  const rgba = new Uint8ClampedArray(width * rows * 4);
  for (let row = 0; row < rows; row++) {
    for (let x = 0; x < width; x++) rgba.fill(bits[Math.floor((x * CELLS) / width)] ? white : black, (row * width + x) * 4, (row * width + x) * 4 + 4);
  }
  return rgba;
}

test("a code is read back at every size it may be scaled to", () => {
  for (const width of [320, 640, 854, 1280, 1920]) {
    assert.deepEqual(decode(painted(1_099_511_627_775, 7, width, 3), width, 3), { ms: 1_099_511_627_775, tag: 7 });
    assert.deepEqual(decode(painted(1_234_567, 0, width, 1), width, 1), { ms: 1_234_567, tag: 0 });
  }
});

test("the checksum of the painter is the checksum of the reader", () => {
  assert.equal(crc8([0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39]), 0xf4); // CRC-8 check value
});

test("one flipped cell is refused, not misread", () => {
  const width = 640;
  const rgba = painted(1_234_567, 3, width, 1);
  const cell = 30;
  for (let x = cell * 10; x < cell * 10 + 10; x++) rgba.fill(rgba[x * 4] > 125 ? 16 : 235, x * 4, x * 4 + 4);
  assert.equal(decode(rgba, width, 1), null);
});

test("a black picture carries no code", () => {
  assert.equal(decode(new Uint8ClampedArray(640 * 4), 640, 1), null);
});

test("the age of a frame survives the wrap of the 40-bit clock and of a looped clip", () => {
  assert.equal(ageOf(CLOCK_MODULUS - 100, 3 * CLOCK_MODULUS + 50), 150);
  assert.equal(ageOf(9_900, 1_000_400, 10_000), 500);
});

test("the band is an eighteenth of the picture, never under eight rows", () => {
  assert.equal(bandHeight(720), 40);
  assert.equal(bandHeight(90), 8);
});
