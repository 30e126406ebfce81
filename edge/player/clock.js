// Reads the clock that test pictures carry (tests/picture/blockcode.py): 64 cells across the top of the picture,
// sync 0xB2, 40 bits of milliseconds, 8 bits of tag, CRC-8. Most broadcasts carry none: then it reads null.
"use strict";

window.PictureClock = (() => {
  const SYNC = 0xb2;
  const CELLS = 64;
  const CELL_PIXELS = 4; // width of a cell in the canvas that is read
  // Weir's demo clip runs for 16 s and is published in step with the Unix clock (loadtest/src/demo.rs).
  const LOOP_MS = 16000;
  const COUNTER_MS = 2 ** 40;

  function crc8(bytes) {
    let crc = 0;
    for (const byte of bytes) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : (crc << 1) & 0xff;
    }
    return crc;
  }

  /** One brightness (0..255) per cell → milliseconds, or null. */
  function decode(cells) {
    const bytes = new Uint8Array(8);
    cells.forEach((level, i) => { if (level > 127) bytes[i >> 3] |= 0x80 >> (i & 7); });
    if (bytes[0] !== SYNC || crc8(bytes.subarray(1, 7)) !== bytes[7]) return null;
    return bytes.subarray(1, 6).reduce((ms, byte) => ms * 256 + byte, 0);
  }

  class PictureClock {
    #canvas = document.createElement("canvas");
    #pixels;

    constructor() {
      this.#canvas.width = CELLS * CELL_PIXELS;
      this.#canvas.height = 1;
      this.#pixels = this.#canvas.getContext("2d", { willReadFrequently: true });
    }

    /** The time that the video's current picture carries, in milliseconds, or null. */
    read(video) {
      const { videoWidth: width, videoHeight: height } = video;
      if (!width || !height) return null;
      const band = Math.max(8, Math.floor(height / 18));
      const middle = Math.max(1, Math.floor(band / 3));
      this.#pixels.drawImage(video, 0, middle, width, middle, 0, 0, this.#canvas.width, 1);
      const { data } = this.#pixels.getImageData(0, 0, this.#canvas.width, 1);
      const cells = Array.from({ length: CELLS }, (_, i) => {
        const at = (i * CELL_PIXELS + 1) * 4; // the two middle pixels of the cell, green
        return (data[at + 1] + data[at + 5]) / 2;
      });
      return decode(cells);
    }

    /** Age in seconds of a picture that carries `ms` and is shown at `shownAtMs` (Unix). */
    static age(ms, shownAtMs) {
      const turn = ms < LOOP_MS ? LOOP_MS : COUNTER_MS;
      return ((((shownAtMs - ms) % turn) + turn) % turn) / 1000;
    }
  }

  PictureClock.decode = decode;
  return PictureClock;
})();
