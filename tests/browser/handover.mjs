#!/usr/bin/env node
// A broadcast ends under its viewers: each stock player watches it live, reaches a proper end, and then plays the recording at the very same
// address. ffmpeg does the same without a browser.
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { pushPicture, startWeir, untilLive } from "./lib/broadcast.mjs";
import { measure, PLAYERS } from "./lib/measurement.mjs";
import { readOptions } from "./lib/options.mjs";
import { outputs, stopAll, within } from "./lib/processes.mjs";

const USAGE = `usage: node handover.mjs --binary <weir> [options]
  --players LIST    of ${PLAYERS.join(",")}, default hls,shaka
  --live N          seconds each is watched live before the broadcast ends, default 8
  --vod N           seconds of the recording each then plays, default 6
  --artifacts DIR   where the screenshots and handover.json go, default artifacts
PYTHON names a Python 3 with numpy, default /usr/bin/python3; CHROMIUM the browser, default /usr/bin/chromium`;

const options = readOptions(USAGE, {
  strings: ["binary", "players", "artifacts"],
  numbers: ["live", "vod"],
  defaults: { players: "hls,shaka", live: 8, vod: 6, artifacts: "artifacts" },
});
const players = options.players.split(",");
if (!options.binary || players.some((player) => !PLAYERS.includes(player))) {
  console.error(USAGE);
  process.exit(2);
}

/** A viewer of an ordinary broadcast finds more than three target durations of it. */
const WARM_UP_MS = 15_000;
/** From the encoder's end to the end of the playlists: the grace time and the last segment. */
const END_SECONDS = 16;
/** Longest wait for the live address to serve the recording. */
const HANDOVER_MS = 20_000;
const LIMIT_SECONDS = 180;

/** The first line of a multivariant playlist that names a media playlist. */
async function firstChild(url) {
  const answer = await fetch(url, { signal: AbortSignal.timeout(5000) });
  return (await answer.text()).split("\n").find((line) => line && !line.startsWith("#")) ?? `${answer.status}`;
}

async function untilRecording(url) {
  for (;;) {
    const child = await firstChild(url);
    if (child.includes("vod/")) return child.split("/").at(-2);
    await pause(100);
  }
}

function ffmpeg(url) {
  const read = spawnSync("ffmpeg", ["-v", "warning", "-nostdin", "-i", url, "-map", "0:v:0", "-map", "0:a:0", "-c", "copy", "-f", "null", "-"], { encoding: "utf8" });
  return { status: read.status, complaints: read.stderr.trim() };
}

async function handOver(player, folder) {
  const file = path.join(folder, `${player}.yaml`);
  await writeFile(file, `origin:\n  http: { listen: "127.0.0.1:0" }\n  rtmp: { listen: "127.0.0.1:0" }\n  admin: { listen: "127.0.0.1:0" }\n  api: { listen: "127.0.0.1:0" }\n` +
    `  record: { every_broadcast: true, journal: "${path.join(folder, player)}" }\n  ingest: { grace: 1s, stable_for: 3s }\n  streams:\n    - key: show\n` +
    `edge:\n  http: { listen: "127.0.0.1:0" }\n  https: { listen: "127.0.0.1:0" }\n  admin: { listen: "127.0.0.1:0" }\n`);
  const { weir, ready } = await startWeir(options.binary, ["--config", file]);
  const [stream] = ready.streams;
  const url = stream.playback.llhls;
  const encoder = pushPicture(`${ready.origin.rtmp}/${stream.key}`, 600);
  await untilLive(url, encoder);
  await pause(WARM_UP_MS);
  const seconds = options.live + END_SECONDS;
  const watching = measure({ url, player, seconds, keepRecord: true, goOn: true, screenshot: path.join(options.artifacts, `handover-${player}-live.png`) });
  watching.catch(() => {}); // told where it is awaited
  await pause((options.live + 3) * 1000);
  await encoder.stop();
  const recording = await within(HANDOVER_MS, "the live address to serve the recording", untilRecording(url));
  const live = await watching;
  const vod = await measure({ url, player, seconds: options.vod, keepRecord: true, goOn: true, screenshot: path.join(options.artifacts, `handover-${player}-vod.png`) });
  const read = ffmpeg(url);
  await weir.stop();
  const figures = (run) => ({ pictures: run.record.frames.length, ended: run.record.mediaEnded, errors: run.errors });
  const found = { player, version: live.playerVersion, recording, live: figures(live), vod: figures(vod), ffmpeg: read, broken: [] };
  if (found.live.errors.fatal + found.live.errors.nonFatal > 0) found.broken.push("errors while live");
  if (!found.live.ended) found.broken.push("the live stream did not come to an end in the player");
  if (found.vod.errors.fatal + found.vod.errors.nonFatal > 0) found.broken.push("errors in the recording");
  if (!(found.vod.pictures > options.vod * 15)) found.broken.push(`only ${found.vod.pictures} pictures of the recording`);
  if (read.status !== 0 || read.complaints) found.broken.push(`ffmpeg: ${read.complaints}`);
  return found;
}

let status = 0;
const folder = await mkdtemp(path.join(os.tmpdir(), "weir-handover-"));
try {
  await mkdir(options.artifacts, { recursive: true });
  const all = [];
  for (const player of players) {
    const found = await within(LIMIT_SECONDS * 1000, `${player}'s run`, handOver(player, folder));
    all.push(found);
    console.log(`${found.player} ${found.version}: live ${found.live.pictures} pictures, ${found.live.errors.fatal} fatal and ${found.live.errors.nonFatal} other errors, ` +
      `ended: ${found.live.ended}; recording ${found.vod.pictures} pictures, ${found.vod.errors.fatal} fatal and ${found.vod.errors.nonFatal} other errors; ffmpeg exit ${found.ffmpeg.status}`);
    for (const fault of found.broken) console.error(`broken: ${found.player}: ${fault}`);
    if (found.broken.length > 0) status = 1;
  }
  await writeFile(path.join(options.artifacts, "handover.json"), JSON.stringify(all, null, 2) + "\n");
} catch (failure) {
  console.error(`handover run failed: ${failure.message}`);
  console.error(outputs());
  status = 1;
}
await stopAll();
await rm(folder, { recursive: true, force: true });
process.exit(status);
