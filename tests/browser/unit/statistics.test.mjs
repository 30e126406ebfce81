// Invented recordings with known faults: each figure must tell exactly the fault that was put in.
import assert from "node:assert/strict";
import test from "node:test";
import { brokenLimits, clockLoss, clockPauses, interruption, latencyBetween, summarise } from "../lib/statistics.mjs";

const FRAME_MS = 1000 / 30;
const START_WALL = 1_700_000_000_000;

/** 30 fps for `count` frames, `latencyMs` behind the source, the code read on every third frame. */
function recording({ count = 300, latencyMs = 800, change = (frame) => frame } = {}) {
  const frames = [];
  for (let i = 0; i < count; i++) {
    const at = 500 + i * FRAME_MS;
    const read = i % 3 === 0;
    const wall = START_WALL + at;
    frames.push(change({ at, wall, presented: i + 1, currentTime: i / 30, read, code: read ? (wall - latencyMs) % 2 ** 40 : null }, i));
  }
  const kept = frames.filter(Boolean);
  return { playAt: 200, frames: kept, waits: [], errors: [], fatalErrors: 0, nonFatalErrors: 0, endedAt: kept.at(-1).at + FRAME_MS, currentTime: 10, droppedFrames: 0, totalFrames: count };
}

test("a clean run shows its latency and no fault", () => {
  const figures = summarise(recording());
  assert.equal(Math.round(figures.latencyMs.p50), 800);
  assert.equal(figures.frames.distinct, 100);
  assert.equal(figures.startup.playToFirstFrameMs, 300);
  assert.deepEqual(figures.stalls, { waiting: 0, waitingMs: 0, freezes: 0, freezeMs: 0, longestFreezeMs: 0, blindMs: 0 });
  assert.deepEqual(brokenLimits(figures, { maxStalls: 0, maxP50: 1000, minFrames: 90 }), []);
});

test("half a second without frames is one freeze", () => {
  // Frames 100..114 never came; the compositor counted none in between.
  const figures = summarise(recording({ change: (frame, i) => (i >= 100 && i < 115 ? null : { ...frame, presented: i < 100 ? i : i - 15 }) }));
  assert.equal(figures.stalls.freezes, 1);
  assert.equal(figures.stalls.longestFreezeMs, Math.round(16 * FRAME_MS));
  assert.equal(brokenLimits(figures, { maxStalls: 0 }).length, 1);
});

test("frames that went by while the page was busy are blind time, not a freeze", () => {
  const figures = summarise(recording({ change: (frame, i) => (i >= 100 && i < 115 ? null : frame) }));
  assert.equal(figures.stalls.freezes, 0);
  assert.equal(figures.stalls.blindMs, Math.round(16 * FRAME_MS));
});

test("frames that repeat the same picture are a freeze", () => {
  const stuck = recording().frames[99].code;
  const figures = summarise(recording({ change: (frame, i) => (i > 99 && i < 120 && frame.read ? { ...frame, code: stuck } : frame) }));
  assert.equal(figures.stalls.freezes, 1);
});

test("a picture that stops before the end of the run is a freeze", () => {
  const record = recording({ count: 150 });
  record.endedAt += 4000;
  assert.equal(summarise(record).stalls.freezes, 1);
});

test("a looped clip may step back once per loop, a live source never", () => {
  const loopMs = 5000;
  const looped = recording({ change: (frame) => ({ ...frame, code: frame.read ? (frame.wall - 800) % loopMs : null }) });
  assert.equal(summarise(looped, { loopMs }).frames.steppedBack, 0);
  assert.ok(summarise(looped).frames.steppedBack > 0);
  assert.equal(Math.round(summarise(looped, { loopMs }).latencyMs.p95), 800);
});

test("no picture and fatal errors break every run, limits or not", () => {
  const record = { ...recording(), frames: [], fatalErrors: 1 };
  assert.equal(brokenLimits(summarise(record)).length, 2);
});

test("an interruption is the time without a new picture after the event, and what moves at the end", () => {
  const killed = START_WALL + 500 + 100 * FRAME_MS;
  // The picture stands from frame 110 to 199: the compositor shows the same one.
  const record = recording({ change: (frame, i) => (i >= 110 && i < 200 ? null : { ...frame, presented: i < 110 ? i : i - 90 }) });
  const { gapMs, tailPictures, tailLatencyMs } = interruption(record, killed, 2010);
  assert.equal(gapMs, Math.round(91 * FRAME_MS));
  assert.equal(tailPictures, 20);
  assert.equal(Math.round(tailLatencyMs), 800);
});

test("an interruption that never ends lasts until the end of the record", () => {
  const record = recording({ change: (frame, i) => (i >= 110 ? null : frame) });
  record.endedAt += 5000;
  const { gapMs, tailPictures } = interruption(record, START_WALL + 500 + 100 * FRAME_MS, 2000);
  assert.equal(gapMs, Math.round(5000 + FRAME_MS));
  assert.equal(tailPictures, 0);
});

/** The element's clock, read ten times a second for `seconds`; it stands still for `ms` from each [second, ms] on. */
function clock(seconds, stops = []) {
  const samples = [];
  for (let at = 0; at < seconds * 1000; at += 100) {
    const stood = stops.reduce((sum, [from, ms]) => sum + Math.max(0, Math.min(ms, at - from * 1000)), 0);
    samples.push({ at: 500 + at, currentTime: 7 + (at - stood) / 1000 });
  }
  return { clock: samples };
}

test("a clock that runs has no pause, and one that stands still has its length", () => {
  assert.deepEqual(clockPauses(clock(10)), { samples: 100, long: 0, longestMs: 0, unsampledMs: 100 });
  const pauses = clockPauses(clock(10, [[2, 200], [5, 700]]));
  assert.equal(pauses.long, 1);
  assert.ok(pauses.longestMs >= 600 && pauses.longestMs <= 700, `${pauses.longestMs} ms`);
});

test("a clock that creeps for a while stands still", () => {
  const record = clock(6);
  record.clock.forEach((sample, i) => (sample.currentTime -= i < 20 ? 0 : Math.min(i - 20, 10) * 0.095));
  assert.ok(clockPauses(record).longestMs >= 100);
  assert.equal(clockPauses(record, 2000).long, 0);
});

test("a time in which nobody looked at the clock is told", () => {
  const record = clock(10);
  record.clock.splice(30, 7);
  assert.equal(clockPauses(record).unsampledMs, 800);
  assert.equal(clockPauses({ clock: [] }).unsampledMs, 0);
});

test("pauses too short to be seen add up to what the clock has lost", () => {
  assert.equal(clockLoss(clock(20)), 0);
  assert.equal(clockLoss(clock(20, [[3, 60], [8, 60], [12, 60]])), 180);
  assert.equal(clockLoss({ clock: [] }), null);
});

test("the latency between two times is the median of the pictures shown then", () => {
  const slower = recording({ change: (frame, i) => ({ ...frame, code: frame.read ? (frame.wall - (i < 150 ? 800 : 1100)) % 2 ** 40 : null }) });
  const change = slower.frames[150].wall;
  assert.equal(Math.round(latencyBetween(slower, START_WALL, change)), 800);
  assert.equal(Math.round(latencyBetween(slower, change, Infinity)), 1100);
  assert.equal(Math.round(latencyBetween(slower, START_WALL, Infinity, 2000)), 1100);
  assert.equal(latencyBetween(slower, 0, START_WALL), null);
});
