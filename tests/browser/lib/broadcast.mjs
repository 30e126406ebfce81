// A whole Weir on free ports and an encoder pushing into it, for the scripts that need a live stream.
// Before it: e2e.mjs, players.mjs. After it: lib/measurement.mjs plays what is live here.
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Process, within } from "./processes.mjs";

const PICTURE = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../picture");
const READY_TIMEOUT_MS = 30_000;
const LIVE_TIMEOUT_MS = 20_000;
/** Everything besides watching: start, first part, browser start, stop. */
export const OVERHEAD_SECONDS = 90;

/**
 * `weir up --ephemeral --json`: resolves with its ready line.
 * @param {string} binary path of the `weir` program
 * @param {string[]} [more] further options of `weir up`
 */
export async function startWeir(binary, more = []) {
  const weir = new Process("weir", binary, ["up", "--ephemeral", "--json", ...more]);
  const text = await weir.firstLine(READY_TIMEOUT_MS);
  let ready;
  try {
    ready = JSON.parse(text);
  } catch {
    throw new Error(`weir's first line is no JSON: ${text.slice(0, 200)}`);
  }
  if (ready.event !== "ready" || !ready.streams?.length) throw new Error(`weir's first line is not the ready event: ${text.slice(0, 400)}`);
  return { weir, ready };
}

/**
 * Pushes a live picture with Debian's ffmpeg (30 pictures and a key frame each second) until stopped or `seconds` are over.
 * @param {string} rtmp where to, `rtmp://host:port/app/key`
 * @param {string[]} [more] further options of gen.py
 */
export function pushPicture(rtmp, seconds, size = "1280x720", more = []) {
  const python = process.env.PYTHON ?? "/usr/bin/python3";
  const options = ["--size", size, "--fps", "30", "--gop", "1", "--preset", "ultrafast", "--seconds", String(seconds), ...more];
  return new Process("encoder", python, [path.join(PICTURE, "gen.py"), "live", "--url", rtmp, ...options]);
}

/**
 * Waits until every media playlist named by the multivariant playlist at `url` lists media; gives the milliseconds it took.
 * @param {Process} encoder who pushes: the wait is over when it ends
 * @param {RegExp} media what counts as media; hls.js ends with an error if it finds no complete segment for a second
 */
export async function untilLive(url, encoder, media = /#EXTINF|#EXT-X-PART:/) {
  const since = performance.now();
  let last = "nothing was asked yet";
  let over = false;
  const poll = async () => {
    while (!over) {
      last = await missing(url, media).catch((failure) => failure.message);
      if (!last) return performance.now() - since;
      await pause(50);
    }
  };
  const gone = encoder.exited.then((how) => Promise.reject(new Error(`${encoder.name} gave up: ${how}`)));
  return within(LIVE_TIMEOUT_MS, "the stream to be live", Promise.race([poll(), gone]))
    .catch((late) => {
      throw new Error(`${late.message}; last answer: ${last}`);
    })
    .finally(() => {
      over = true;
    });
}

/**
 * Where an encoder pushes over SRT, through a link that loses `loss` percent of all datagrams both ways and takes 20 ms each way.
 * @param {string} link path of the example program `lossy_link`
 */
async function lossyAddress(srt, key, link, loss) {
  const relay = new Process("lossy link", link, [srt.replace("srt://", ""), String(loss), "20", "1"]);
  const address = await relay.firstLine(READY_TIMEOUT_MS);
  return `srt://${address}?streamid=${key}&latency=200000`; // in microseconds, as ffmpeg wants it
}

/**
 * A live stream for `seconds`, with time to spare around them: Weir, an encoder, `warmUp` seconds of history. With `link` it comes over
 * SRT and loses `loss` percent on its way, else over RTMP.
 */
export async function broadcast(binary, { more = [], seconds, warmUp = 0, link, loss }) {
  const { ready } = await startWeir(binary, more);
  const [stream] = ready.streams;
  const address = link ? await lossyAddress(ready.origin.srt, stream.key, link, loss) : `${ready.origin.rtmp}/${stream.key}`;
  const encoder = pushPicture(address, warmUp + seconds + OVERHEAD_SECONDS);
  const liveAfterMs = await untilLive(stream.playback.llhlsDirect, encoder);
  await pause(warmUp * 1000);
  return { ready, stream, encoder, liveAfterMs };
}

/** What is still missing of the stream at `url`, or null when every media playlist has what is `needed`. */
async function missing(url, needed) {
  const multivariant = await fetch(url, { signal: AbortSignal.timeout(5000) });
  if (!multivariant.ok) return `${multivariant.status} for ${url}`;
  const uris = mediaPlaylists(await multivariant.text());
  if (uris.length === 0) return `no media playlist in ${url}`;
  for (const uri of uris) {
    const media = await fetch(new URL(uri, multivariant.url), { signal: AbortSignal.timeout(5000) });
    const text = await media.text();
    if (!media.ok || !needed.test(text)) return `${media.status} without media for ${uri}`;
  }
  return null;
}

/** URIs of the media playlists in a multivariant playlist: variants and EXT-X-MEDIA renditions. */
export function mediaPlaylists(text) {
  const lines = text.split("\n").map((line) => line.trim());
  const variants = lines.filter((line) => line && !line.startsWith("#"));
  const renditions = lines.filter((line) => line.startsWith("#EXT-X-MEDIA:")).map((line) => /URI="([^"]+)"/.exec(line)?.[1]);
  return [...variants, ...renditions.filter(Boolean)];
}
