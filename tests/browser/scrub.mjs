#!/usr/bin/env node
// A viewer scrubs through a running show: to the start of its DVR window, to the middle, back to live, in hls.js in Chromium. What was seen
// is read off the picture's own clock: each jump must show the moment that was asked for, and go on playing from there.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { OVERHEAD_SECONDS, pushPicture, startWeir, untilLive } from "./lib/broadcast.mjs";
import { CLOCK_MODULUS } from "./pages/blockcode.js";
import { open } from "./lib/measurement.mjs";
import { readOptions } from "./lib/options.mjs";
import { outputs, stopAll, within } from "./lib/processes.mjs";

const USAGE = `usage: node scrub.mjs --binary <weir> [options]
  --window N        seconds of the DVR window, default 600; it is filled in real time
  --stay N          seconds to go on playing after each jump, default 6
  --artifacts DIR   where the screenshots and scrub.json go, default artifacts
PYTHON names a Python 3 with numpy, default /usr/bin/python3; CHROMIUM the browser, default /usr/bin/chromium`;

const options = readOptions(USAGE, {
  strings: ["binary", "artifacts"],
  numbers: ["window", "stay"],
  defaults: { window: 600, stay: 6, artifacts: "artifacts" },
});
if (!options.binary) {
  console.error(USAGE);
  process.exit(2);
}

/** The window slides for this long before anybody looks: its first segments have left. */
const SLIDING_SECONDS = 20;
/** From the first picture to the first jump. */
const SETTLE_MS = 5000;
/** Longest wait for the picture of a jump. */
const PICTURE_MS = 15_000;
/** How far a picture may be from the moment that was asked for: a segment, and what a player rounds to. */
const TOLERANCE_SECONDS = 4;
/** Furthest from the live edge that the last jump may end. */
const LIVE_SECONDS = 15;
/** Small: the window takes its time, and needs no machine meanwhile. */
const SIZE = "640x360";
/** Both players together, without the wait for the window. */
const LIMIT_SECONDS = 180;

/** Seeks to `share` of the window (1: its live end), stays, and gives what the picture's clock said. */
async function jump(page, share, stay) {
  const asked = await page.evaluate((share) => {
    const { video, record } = window.probe;
    // What the element calls seekable begins at zero for ever, unless hls.js is told otherwise.
    const { fragmentStart: start, edge: end } = window.hls.latestLevelDetails;
    const newest = record.frames.findLast((frame) => frame.code !== null);
    const to = share === 1 ? end - 1 : start + 0.5 + share * (end - start);
    window.scrub = { frames: Infinity, at: performance.now() };
    // Until then pictures are still those of before.
    video.addEventListener("seeked", () => (window.scrub.frames = record.frames.length), { once: true });
    video.currentTime = to;
    video.play();
    return { start, end, to, before: { code: newest.code, currentTime: newest.currentTime } };
  }, share);
  await page.waitForFunction(() => window.probe.record.frames.slice(window.scrub.frames).some((frame) => frame.code !== null), null, { timeout: PICTURE_MS, polling: 20 });
  await pause(stay * 1000);
  const seen = await page.evaluate(() => {
    const frames = window.probe.record.frames.slice(window.scrub.frames).filter((frame) => frame.code !== null);
    const [first, last] = [frames[0], frames.at(-1)];
    return { afterMs: first.at - window.scrub.at, count: frames.length, first, last };
  });
  const seconds = (ms) => ms / 1000;
  // The picture's clock and the player's run at one pace: where one jumps to, so must the other.
  const byPicture = seconds(seen.first.code - asked.before.code);
  const byPlayer = seen.first.currentTime - asked.before.currentTime;
  return {
    share,
    windowSeconds: asked.end - asked.start,
    pictureAfterMs: Math.round(seen.afterMs),
    behindLiveSeconds: seconds((seen.first.wall % CLOCK_MODULUS) - seen.first.code),
    missedBySeconds: byPicture - byPlayer,
    landedFromAsked: seen.first.currentTime - asked.to,
    playedSeconds: seconds(seen.last.code - seen.first.code),
  };
}

function faults(jumps, record, stay) {
  // A jump ends the requests that are under way: hls.js tells of that, too.
  const errors = record.errors.filter((error) => error.fatal || !error.what.includes("networkError aborted"));
  const broken = errors.map((error) => `${error.fatal ? "fatal" : "non-fatal"} error: ${error.what}`);
  for (const { share, ...seen } of jumps) {
    const at = share === 1 ? "live" : `${share * 100} %`;
    if (Math.abs(seen.missedBySeconds) > TOLERANCE_SECONDS) broken.push(`${at}: the picture is off by ${seen.missedBySeconds} s`);
    if (Math.abs(seen.landedFromAsked) > TOLERANCE_SECONDS && share < 1) broken.push(`${at}: the player landed ${seen.landedFromAsked} s from where it was sent`);
    if (seen.playedSeconds < stay / 2) broken.push(`${at}: played only ${seen.playedSeconds} s in ${stay} s`);
    if (share < 1 && seen.behindLiveSeconds < (1 - share) * options.window - SLIDING_SECONDS) broken.push(`${at}: only ${seen.behindLiveSeconds} s behind live`);
    if (share === 1 && seen.behindLiveSeconds > LIVE_SECONDS) broken.push(`${at}: ${seen.behindLiveSeconds} s behind live`);
  }
  return broken;
}

async function scrub(name, url) {
  const viewer = await open({ url, player: "hls" });
  try {
    const { page } = viewer;
    await page.waitForFunction(() => window.probe?.record.frames.some((frame) => frame.code !== null), null, { timeout: PICTURE_MS });
    // A player that has just begun still seeks by itself.
    await pause(SETTLE_MS);
    const start = await page.evaluate(() => {
      window.probe.video.controls = true;
      return window.probe.record.errors.splice(0);
    });
    const jumps = [];
    for (const [word, share] of [["start", 0], ["middle", 0.5], ["live", 1]]) {
      jumps.push(await jump(page, share, options.stay));
      // The bar is shown while the mouse moves.
      await page.mouse.move(400 + jumps.length, 400);
      await page.screenshot({ path: path.join(options.artifacts, `scrub-${name}-${word}.png`) });
    }
    const record = await page.evaluate(() => window.probe.finish());
    return { name, version: record.version, start, jumps, broken: faults(jumps, record, options.stay) };
  } finally {
    await viewer.close();
  }
}

let status = 0;
const folder = await mkdtemp(path.join(os.tmpdir(), "weir-scrub-"));
try {
  await mkdir(options.artifacts, { recursive: true });
  const file = path.join(folder, "weir.yaml");
  const anywhere = `{ listen: "127.0.0.1:0" }`;
  await writeFile(file, `origin:\n  http: ${anywhere}\n  rtmp: ${anywhere}\n  admin: ${anywhere}\n  api: ${anywhere}\n  streams:\n    - { key: show, dvr: ${options.window}s }\n` +
    `edge:\n  http: ${anywhere}\n  https: ${anywhere}\n  admin: ${anywhere}\n`);
  const { ready } = await startWeir(options.binary, ["--config", file]);
  const [stream] = ready.streams;
  const filling = options.window + SLIDING_SECONDS;
  const encoder = pushPicture(`${ready.origin.rtmp}/${stream.key}`, filling + LIMIT_SECONDS + OVERHEAD_SECONDS, SIZE);
  await untilLive(stream.playback.llhls, encoder);
  await pause(filling * 1000);
  const all = [];
  for (const [name, url] of [["default", stream.playback.llhls], ["direct", stream.playback.llhlsDirect]]) {
    const found = await within((LIMIT_SECONDS / 2) * 1000, `the viewer of the ${name} playlists`, scrub(name, url));
    all.push(found);
    for (const jump of found.jumps) {
      console.log(`${name}, to ${jump.share * 100} % of ${jump.windowSeconds.toFixed(0)} s: picture after ${jump.pictureAfterMs} ms, ` +
        `${jump.behindLiveSeconds.toFixed(1)} s behind live, off by ${jump.missedBySeconds.toFixed(2)} s, played ${jump.playedSeconds.toFixed(1)} s`);
    }
    for (const { what } of found.start) console.log(`${name}, before the first jump: ${what}`);
    for (const fault of found.broken) console.error(`broken: ${name}: ${fault}`);
    if (found.broken.length > 0) status = 1;
  }
  await writeFile(path.join(options.artifacts, "scrub.json"), JSON.stringify(all, null, 2) + "\n");
} catch (failure) {
  console.error(`scrub run failed: ${failure.message}`);
  console.error(outputs());
  status = 1;
}
await stopAll();
await rm(folder, { recursive: true, force: true });
process.exit(status);
