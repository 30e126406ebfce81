#!/usr/bin/env node
// A second encoder: GStreamer's rtmp2sink, which talks RTMP in another order than ffmpeg, pushes; the playlists must appear and move on.
import { setTimeout as pause } from "node:timers/promises";
import { mediaPlaylists, startWeir, untilLive } from "./lib/broadcast.mjs";
import { readOptions } from "./lib/options.mjs";
import { outputs, Process, stopAll, within } from "./lib/processes.mjs";

const USAGE = `usage: node gstreamer.mjs --weir <program> [--seconds N]
Pushes with gst-launch-1.0 and expects every playlist at the edge to have moved on after N seconds, default 5.`;
const options = readOptions(USAGE, { strings: ["weir"], numbers: ["seconds"], defaults: { seconds: 5 } });
if (!options.weir) {
  console.error(USAGE);
  process.exit(2);
}

const OVERHEAD_SECONDS = 60;

const pipeline = (location) =>
  [
    `flvmux name=mux streamable=true ! rtmp2sink location=${location}`,
    "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1",
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 bitrate=800 ! h264parse ! mux.",
    "audiotestsrc is-live=true ! audioconvert ! audio/x-raw,channels=2 ! avenc_aac ! aacparse ! mux.",
  ]
    .join(" ")
    .split(" ");

/** The last URI each media playlist of the stream lists, joined: it changes when any of them moves on. */
async function ends(url) {
  const uris = mediaPlaylists(await (await fetch(url)).text());
  return Promise.all(
    uris.map(async (uri) => {
      const text = await (await fetch(new URL(uri, url))).text();
      return text.match(/^#EXT-X-PART:.*$/gm)?.at(-1) ?? text.trim().split("\n").at(-1);
    }),
  );
}

async function run() {
  const { ready } = await startWeir(options.weir);
  const [stream] = ready.streams;
  const encoder = new Process("gst-launch-1.0", "gst-launch-1.0", pipeline(`${ready.origin.rtmp}/${stream.key}`));
  const liveAfterMs = await untilLive(stream.playback.llhls, encoder);
  const before = await ends(stream.playback.llhls);
  await pause(options.seconds * 1000);
  const after = await ends(stream.playback.llhls);
  const still = before.filter((end, i) => end === after[i]);
  if (before.length < 2) throw new Error(`one playlist for picture and one for sound were expected, not ${before.length}`);
  if (still.length > 0) throw new Error(`a playlist stood still for ${options.seconds} s at ${still[0]}`);
  if (encoder.ended) throw new Error(`the encoder ended: ${encoder.ended}`);
  console.log(`rtmp2sink: ${after.length} playlists live ${Math.round(liveAfterMs)} ms after the push began, all moving after ${options.seconds} s`);
}

let status = 0;
try {
  await within((options.seconds + OVERHEAD_SECONDS) * 1000, "the GStreamer push", run());
} catch (failure) {
  console.error(`GStreamer push failed: ${failure.message}\n${outputs()}`);
  status = 1;
}
await stopAll();
process.exit(status);
