#!/usr/bin/env node
// Encoders fail under a viewer: either primary and backup push the same live picture and whoever is shown is killed, again and again, or one
// encoder is cut off and comes back. A stock player must go on by itself, without a fatal error and without a page reload.
// Before it: lib/broadcast.mjs pushes. After it: lib/statistics.mjs judges what the picture's own clock told.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { pushPicture, untilLive } from "./lib/broadcast.mjs";
import { measure, PLAYERS } from "./lib/measurement.mjs";
import { readOptions } from "./lib/options.mjs";
import { outputs, Process, stopAll, within } from "./lib/processes.mjs";
import { interruption } from "./lib/statistics.mjs";

const USAGE = `usage: node failover.mjs --origin <program> --edge <program> [options]
  --player NAME     ${PLAYERS.join("|")}, default hls
  --switches N      how often the encoder that is shown is killed while the other one pushes too, default 20
  --breaks LIST     instead: one encoder, away for so many seconds each time, for example 1,5,9
  --every N         seconds from one switch or return to the next, default 4
  --size WxH        of the picture, default 640x360
  --max-stall N     longest time without a new picture, in seconds, beyond the break itself; default 1
  --artifacts DIR   where failover.json goes, default artifacts
PYTHON names a Python 3 with numpy, default /usr/bin/python3; CHROMIUM the browser, default /usr/bin/chromium`;

const options = readOptions(USAGE, {
  strings: ["origin", "edge", "player", "breaks", "size", "artifacts"],
  numbers: ["switches", "every", "max-stall"],
  defaults: { player: "hls", switches: 20, every: 4, size: "640x360", "max-stall": 1, artifacts: "artifacts" },
});
if (!options.origin || !options.edge || !PLAYERS.includes(options.player)) {
  console.error(USAGE);
  process.exit(2);
}

const KEY = "show";
const SLOTS = [KEY, `${KEY}/backup`];
const breaks = options.breaks ? options.breaks.split(",").map(Number) : [];
const seconds = breaks.length > 0
  ? breaks.reduce((sum, away) => sum + away + options.every, 10)
  : options.switches * options.every + 15;
const OVERHEAD_SECONDS = 90;
const TIMEOUT_MS = 20_000;
const TAIL_MS = 3000;

async function freePort() {
  const server = createServer();
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function until(what, holds) {
  const poll = async () => {
    while (!(await holds().catch(() => false))) await pause(50);
  };
  await within(TIMEOUT_MS, what, poll());
}

async function run(folder) {
  const [originHttp, rtmp, originAdmin, edgeHttp, edgeAdmin] = [await freePort(), await freePort(), await freePort(), await freePort(), await freePort()];
  const at = (port) => `{ listen: "127.0.0.1:${port}" }`;
  const [originFile, edgeFile] = [path.join(folder, "origin.yaml"), path.join(folder, "edge.yaml")];
  await writeFile(originFile, `http: ${at(originHttp)}\nrtmp: ${at(rtmp)}\nadmin: ${at(originAdmin)}\napi: { listen: "127.0.0.1:0" }\ndatabase: { url: "sqlite:${path.join(folder, "weir.db")}" }\nstreams:\n  - key: ${KEY}\n` +
    "ingest: { grace: 10s, failover_after: 500ms, revert: never }\n");
  await writeFile(edgeFile, `http: ${at(edgeHttp)}\nadmin: ${at(edgeAdmin)}\norigins:\n  - "http://127.0.0.1:${originHttp}"\n`);
  new Process("origin", options.origin, ["--config", originFile]);
  new Process("edge", options.edge, ["--config", edgeFile]);
  for (const admin of [originAdmin, edgeAdmin]) await until("readiness", async () => (await fetch(`http://127.0.0.1:${admin}/readyz`)).ok);

  const push = (slot) => pushPicture(`rtmp://127.0.0.1:${rtmp}/app/${SLOTS[slot]}`, seconds + OVERHEAD_SECONDS, options.size);
  const stream = async () => (await (await fetch(`http://127.0.0.1:${originAdmin}/streams`)).json()).streams[0];
  const shown = async (slot) => (await stream()).publishers.some((one) => one.shown && one.slot === (slot === 0 ? "primary" : "backup"));
  const encoders = [push(0), null];
  const url = `http://127.0.0.1:${edgeHttp}/app/${KEY}/index.m3u8`;
  await untilLive(url, encoders[0]);
  if (breaks.length === 0) encoders[1] = push(1);
  await pause(8000);

  const playing = measure({ url, player: options.player, seconds, keepRecord: true });
  playing.catch(() => {}); // told where it is awaited
  await pause(5000);
  const marks = [];
  const cut = async (slot) => {
    marks.push({ wall: Date.now(), away: 0 });
    encoders[slot].signal("SIGKILL");
    await encoders[slot].exited;
  };
  for (const away of breaks) {
    await cut(0);
    await pause(away * 1000);
    encoders[0] = push(0);
    marks.at(-1).away = Date.now() - marks.at(-1).wall;
    await pause(options.every * 1000);
  }
  for (let round = 0; breaks.length === 0 && round < options.switches; round++) {
    await until("both to send", async () => (await stream()).live && (await stream()).backupLive);
    // Not always the other one: an encoder that is back may have its key frame first.
    const slot = (await shown(0)) ? 0 : 1;
    await cut(slot);
    encoders[slot] = push(slot);
    await pause(options.every * 1000);
  }
  const { record, ...figures } = await playing;
  const found = { ...figures, ...interruption(record, marks[0].wall, TAIL_MS), marks: marks.length };
  const allowed = options["max-stall"] * 1000 + Math.max(...marks.map((mark) => mark.away));
  found.broken = [];
  if (found.errors.fatal > 0) found.broken.push(`${found.errors.fatal} fatal player error(s)`);
  if (!(found.gapMs <= allowed)) found.broken.push(`${found.gapMs} ms without a new picture, at most ${allowed} allowed`);
  if (!(found.tailPictures >= 10)) found.broken.push(`${found.tailPictures} pictures in the last ${TAIL_MS} ms`);
  return found;
}

let status = 1;
const folder = await mkdtemp(path.join(os.tmpdir(), "weir-failover-"));
try {
  const found = await within((OVERHEAD_SECONDS + seconds) * 1000, "the failover run", run(folder));
  await mkdir(options.artifacts, { recursive: true });
  await writeFile(path.join(options.artifacts, "failover.json"), JSON.stringify(found, null, 2) + "\n");
  console.log(JSON.stringify({ errors: found.errors, latencyMs: found.latencyMs, stalls: found.stalls }));
  console.log(`${found.player} ${found.playerVersion}: ${found.marks} failures, at most ${found.gapMs} ms without a new picture, ` +
    `${found.tailPictures} pictures in the last ${TAIL_MS} ms, then ${found.tailLatencyMs} ms behind, ${found.errors.fatal} fatal errors, ${found.errors.nonFatal} other`);
  for (const fault of found.broken) console.error(`broken: ${fault}`);
  status = found.broken.length > 0 ? 1 : 0;
} catch (failure) {
  console.error(`failover run failed: ${failure.message}`);
}
if (status !== 0) console.error(outputs());
await stopAll();
await rm(folder, { recursive: true, force: true });
process.exit(status);
