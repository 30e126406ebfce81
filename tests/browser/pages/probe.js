// The eye in front of the player: watches one <video>, whatever library feeds it, and keeps what it saw in `window.probe`.
// Before it: the page of one player. After it: lib/measurement.mjs collects the record, lib/statistics.mjs judges it.
import { bandHeight, decode } from "./blockcode.js";

/** A frame's code is read at most this often; presentation times are kept for every frame. */
const READ_EVERY_MS = 90;
/** Bounds on what one run can remember: 20 minutes of 60 fps video, and the first errors. */
const MAX_FRAMES = 72_000;
/** How often the element's clock is read. */
const CLOCK_EVERY_MS = 100;
const MAX_ERRORS = 50;

const query = new URLSearchParams(location.search);
/** The multivariant playlist to play. */
export const url = query.get("url");

const record = {
  playAt: null, // performance.now() when the player was told to load and play; 0 is the navigation
  frames: [], // {at, wall, presented, currentTime, read, code}: `at` by performance.now(), `wall` by Date.now()
  clock: [], // {at, currentTime}, ten times a second from the first picture on
  waits: [], // [from, to | null] performance.now() of each `waiting` while the picture was running
  errors: [], // {fatal, what}
  fatalErrors: 0,
  nonFatalErrors: 0,
  version: null, // the player library's own version
};
window.probe = { record, finish };

/** Notes what the player reports; a fatal error is one it did not recover from by itself. */
export function error(fatal, what) {
  if (fatal) record.fatalErrors++;
  else record.nonFatalErrors++;
  if (record.errors.length < MAX_ERRORS) record.errors.push({ fatal, what: String(what), atMs: Math.round(performance.now()) });
}

/** To be called right before the player is told to load and play. */
export function starting(version) {
  record.version = version;
  record.playAt = performance.now();
}

/** Watches `video`; may be called as soon as the element exists. */
export function watch(video) {
  const band = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  let lastRead = -Infinity;

  const onFrame = (_now, metadata) => {
    const at = performance.now();
    const wall = Date.now();
    const read = at - lastRead >= READ_EVERY_MS;
    if (read) lastRead = at;
    const code = read ? readCode(band, video) : null;
    if (record.frames.length < MAX_FRAMES) {
      record.frames.push({ at, wall, presented: metadata.presentedFrames, currentTime: video.currentTime, read, code });
    }
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);

  setInterval(() => {
    if (record.frames.length > 0 && record.clock.length < MAX_FRAMES) record.clock.push({ at: performance.now(), currentTime: video.currentTime });
  }, CLOCK_EVERY_MS);

  const running = () => record.frames.length > 0 && !video.paused && !video.seeking && !video.ended;
  const openWait = () => record.waits.find((wait) => wait[1] === null);
  video.addEventListener("waiting", () => {
    if (running() && !openWait() && record.waits.length < MAX_FRAMES) record.waits.push([performance.now(), null]);
  });
  const resumed = () => {
    const wait = openWait();
    if (wait) wait[1] = performance.now();
  };
  // A pause that ends in `timeupdate` without `playing` does not exist in Chromium, so `playing` closes a wait.
  video.addEventListener("playing", resumed);
  video.addEventListener("error", () => error(true, `media element: ${video.error?.message || video.error?.code}`));
  window.probe.video = video;
}

/** Ends the observation: gives the record together with what the element itself counted. */
function finish() {
  const video = window.probe.video;
  const quality = video?.getVideoPlaybackQuality?.();
  return {
    ...record,
    endedAt: performance.now(),
    currentTime: video?.currentTime ?? null,
    mediaEnded: video?.ended ?? null,
    playbackRate: video?.playbackRate ?? null,
    paused: video?.paused ?? null,
    size: video ? [video.videoWidth, video.videoHeight] : null,
    droppedFrames: quality?.droppedVideoFrames ?? null,
    totalFrames: quality?.totalVideoFrames ?? null,
  };
}

function readCode(band, video) {
  const width = video.videoWidth;
  const height = bandHeight(video.videoHeight);
  const top = Math.floor(height / 3);
  const rows = Math.max(1, Math.floor((2 * height) / 3) - top);
  if (!width || !rows) return null;
  if (band.canvas.width !== width) band.canvas.width = width;
  if (band.canvas.height !== rows) band.canvas.height = rows;
  band.drawImage(video, 0, top, width, rows, 0, 0, width, rows);
  return decode(band.getImageData(0, 0, width, rows).data, width, rows)?.ms ?? null;
}

window.addEventListener("error", (event) => error(true, `page: ${event.message}`));
window.addEventListener("unhandledrejection", (event) => error(false, `promise: ${event.reason?.message ?? event.reason}`));
