// What the probe saw → figures a person can compare. Pure: no browser, no clock.
// Before it: pages/probe.js (the record). After it: measure.mjs prints, limits decide.
import { ageOf } from "../pages/blockcode.js";

/** A picture that stands still longer than this is a freeze a viewer notices. */
export const FREEZE_MS = 250;
/** Between two samples a clock that runs has moved by more. */
const CLOCK_STEP_S = 0.01;

/** The value below which `share` (0..1) of the sorted numbers lie. */
export function percentile(sorted, share) {
  if (sorted.length === 0) return null;
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

/**
 * @param record what `probe.finish()` returned
 * @param {{loopMs?: number, freezeMs?: number}} options
 */
export function summarise(record, { loopMs = 0, freezeMs = FREEZE_MS } = {}) {
  const first = record.frames[0];
  return {
    startup: {
      navigationToFirstFrameMs: first ? Math.round(first.at) : null,
      playToFirstFrameMs: first ? Math.round(first.at - record.playAt) : null,
    },
    latencyMs: latency(record, loopMs),
    stalls: { ...waits(record), ...freezes(record, freezeMs) },
    frames: {
      presented: record.frames.at(-1)?.presented ?? 0,
      ...codes(record, loopMs),
      dropped: record.droppedFrames,
      total: record.totalFrames,
    },
    currentTime: {
      first: first?.currentTime ?? null,
      last: record.currentTime,
      steppedBack: stepsBack(record.frames.map((frame) => frame.currentTime)),
    },
    playbackRate: record.playbackRate,
    size: record.size,
    errors: { fatal: record.fatalErrors, nonFatal: record.nonFatalErrors, first: record.errors },
    playerVersion: record.version,
  };
}

/** Which limits the figures break, in words; an empty list is a pass. Fatal errors and a black picture always fail. */
export function brokenLimits(figures, { maxStalls, maxP50, minFrames } = {}) {
  const broken = [];
  const stalls = Math.max(figures.stalls.waiting, figures.stalls.freezes);
  if (figures.startup.navigationToFirstFrameMs === null) broken.push("no frame was ever presented");
  if (figures.errors.fatal > 0) broken.push(`${figures.errors.fatal} fatal player error(s)`);
  if (maxStalls !== undefined && stalls > maxStalls) broken.push(`${stalls} stall(s), at most ${maxStalls} allowed`);
  if (maxP50 !== undefined && !(figures.latencyMs.p50 <= maxP50)) broken.push(`latency p50 ${figures.latencyMs.p50} ms, at most ${maxP50} allowed`);
  if (minFrames !== undefined && figures.frames.distinct < minFrames) broken.push(`${figures.frames.distinct} different pictures, at least ${minFrames} wanted`);
  return broken;
}

/**
 * How a viewer was interrupted by what happened at `wallMs`: the longest time without a new picture from then on, and how the picture moved
 * in the last `tailMs`.
 */
export function interruption(record, wallMs, tailMs) {
  const frames = record.frames.filter((frame, i) => frame.wall >= wallMs || record.frames[i + 1]?.wall >= wallMs);
  const changes = pictureChanges(frames);
  const gaps = changes.map((frame, i) => frame.at - (changes[i - 1] ?? frame).at);
  if (changes.length > 0) gaps.push(record.endedAt - changes.at(-1).at);
  const tail = record.frames.filter((frame) => frame.at >= record.endedAt - tailMs && frame.code !== null);
  const ages = tail.map((frame) => ageOf(frame.code, frame.wall, 0)).sort((a, b) => a - b);
  return {
    gapMs: changes.length > 0 ? Math.round(Math.max(...gaps)) : null,
    tailPictures: new Set(tail.map((frame) => frame.code)).size,
    tailLatencyMs: percentile(ages, 0.5),
  };
}

/**
 * Where the clock of the element stood still: how often for more than `longMs`, and the longest time. Sampled ten times a second;
 * `unsampledMs` is the longest time in which nobody looked.
 */
export function clockPauses(record, longMs = FREEZE_MS) {
  const pauses = [];
  let since = null; // the first sample at which the clock had its present time
  for (const sample of record.clock) {
    if (since === null || sample.currentTime - since.currentTime > CLOCK_STEP_S) since = sample;
    else pauses.push({ from: since.at, ms: sample.at - since.at });
  }
  const longest = new Map();
  for (const { from, ms } of pauses) longest.set(from, Math.max(ms, longest.get(from) ?? 0));
  const long = [...longest.values()].filter((ms) => ms > longMs);
  const blind = record.clock.map((sample, i) => sample.at - (record.clock[i - 1] ?? sample).at);
  return {
    samples: record.clock.length,
    long: long.length,
    longestMs: Math.round(Math.max(0, ...longest.values())),
    unsampledMs: Math.round(blind.reduce((most, ms) => Math.max(most, ms), 0)),
  };
}

/** How many milliseconds the element's clock has lost against the wall from its first second to its last: what pauses, however short, add up to. */
export function clockLoss({ clock }) {
  if (clock.length === 0) return null;
  const behind = (samples) => percentile(samples.map((sample) => sample.at - sample.currentTime * 1000).sort((a, b) => a - b), 0.5);
  const begin = clock.filter((sample) => sample.at <= clock[0].at + 1000);
  const end = clock.filter((sample) => sample.at >= clock.at(-1).at - 1000);
  return Math.round(behind(end) - behind(begin));
}

/** Median age of the picture between two wall-clock times; with `lastMs`, in the last of that time only. */
export function latencyBetween(record, fromWall, toWall, lastMs = Infinity) {
  const inside = record.frames.filter((frame) => frame.wall >= fromWall && frame.wall < toWall && frame.code !== null);
  const end = inside.at(-1)?.wall ?? 0;
  const ages = inside.filter((frame) => frame.wall >= end - lastMs).map((frame) => ageOf(frame.code, frame.wall, 0));
  return percentile(ages.sort((a, b) => a - b), 0.5);
}

function latency(record, loopMs) {
  const ages = record.frames.filter((frame) => frame.code !== null).map((frame) => ageOf(frame.code, frame.wall, loopMs));
  const sorted = [...ages].sort((a, b) => a - b);
  return {
    p50: percentile(sorted, 0.5),
    p95: percentile(sorted, 0.95),
    max: sorted.at(-1) ?? null,
    min: sorted[0] ?? null,
    first: ages[0] ?? null,
    last: ages.at(-1) ?? null,
    samples: ages.length,
  };
}

function codes(record, loopMs) {
  const read = record.frames.filter((frame) => frame.read);
  const decoded = read.filter((frame) => frame.code !== null).map((frame) => frame.code);
  // A looped clip steps back once per loop, by nearly its whole length.
  const wrapped = loopMs ? decoded.filter((code, i) => i > 0 && decoded[i - 1] - code > loopMs / 2).length : 0;
  return {
    read: read.length,
    undecodable: read.length - decoded.length,
    distinct: new Set(decoded).size,
    steppedBack: stepsBack(decoded) - wrapped,
  };
}

function stepsBack(values) {
  return values.filter((value, i) => i > 0 && value < values[i - 1]).length;
}

function waits(record) {
  const lengths = record.waits.map(([from, to]) => (to ?? record.endedAt) - from);
  return { waiting: lengths.length, waitingMs: Math.round(sum(lengths)) };
}

/**
 * A freeze is a time longer than `freezeMs` without a new picture. When the page itself was too busy to look, the compositor's
 * own count (`presented`) tells that pictures went by unseen: such a time counts as `blindMs`, not as a freeze.
 */
function freezes(record, freezeMs) {
  const changes = pictureChanges(record.frames);
  const gaps = [];
  let blindMs = 0;
  changes.forEach((frame, i) => {
    const gap = i === 0 ? 0 : frame.at - changes[i - 1].at;
    if (gap <= freezeMs) return;
    if (wentByUnseen(changes[i - 1], frame, record.frames, freezeMs)) blindMs += gap;
    else gaps.push(gap);
  });
  const tail = changes.length > 0 ? record.endedAt - changes.at(-1).at : 0;
  if (tail > freezeMs) gaps.push(tail);
  return {
    freezes: gaps.length,
    freezeMs: Math.round(sum(gaps)),
    longestFreezeMs: Math.round(Math.max(0, ...gaps)),
    blindMs: Math.round(blindMs),
  };
}

/** Whether the page saw nothing at all between two changes although the compositor kept presenting pictures. */
function wentByUnseen(before, after, frames, freezeMs) {
  const looked = frames.indexOf(after) - frames.indexOf(before) > 1;
  return !looked && (after.presented - before.presented) * freezeMs > after.at - before.at;
}

/** The frames that brought a new picture: all but those up to which the code in the picture had not moved since it was last read. */
function pictureChanges(frames) {
  const changes = [];
  let lastCode = null;
  let confirmed = 0; // changes before this index are proven by a code that moved
  for (const frame of frames) {
    if (frame.code !== null && frame.code === lastCode) {
      changes.length = confirmed;
      continue;
    }
    changes.push(frame);
    if (frame.code === null) continue;
    lastCode = frame.code;
    confirmed = changes.length;
  }
  return changes;
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}
