#!/usr/bin/env node
// An origin dies under a viewer: two programs, two configuration files, ffmpeg pushing in a reconnect loop, and a stock player that must
// go on by itself, at the same address and without a page reload, once the origin is back.
//
// What stock players do: hls.js 1.7, media-chrome and video.js go on with the first segment of the new life, about four seconds after the
// kill when the origin is away for one, the encoder for another, and a segment is two long. Shaka 5.2 asks for the part that the old life
// hinted, and for nothing else, until its whole playlist window has passed. All of them keep their position and their page.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { mediaPlaylists, pushPicture, untilLive } from "./lib/broadcast.mjs";
import { measure, PLAYERS } from "./lib/measurement.mjs";
import { readOptions } from "./lib/options.mjs";
import { outputs, Process, stopAll, within } from "./lib/processes.mjs";
import { interruption } from "./lib/statistics.mjs";

const USAGE = `usage: node restart.mjs --origin <program> --edge <program> [options]
  --player NAME     ${PLAYERS.join("|")}, default hls
  --before N        seconds watched before the origin is killed, default 8
  --down N          seconds until it is started again, default 1
  --after N         seconds watched from then on, default 20
  --max-gap N       longest time without a new picture, in seconds, default 12
  --artifacts DIR   where restart.png and restart.json go, default artifacts
PYTHON names a Python 3 with numpy, default /usr/bin/python3; CHROMIUM the browser, default /usr/bin/chromium`;

const options = readOptions(USAGE, {
  strings: ["origin", "edge", "player", "artifacts"],
  numbers: ["before", "down", "after", "max-gap"],
  defaults: { player: "hls", before: 8, down: 1, after: 20, "max-gap": 12, artifacts: "artifacts" },
});
if (!options.origin || !options.edge || !PLAYERS.includes(options.player)) {
  console.error(USAGE);
  process.exit(2);
}

const KEY = "show";
const OVERHEAD_SECONDS = 90;
const READY_TIMEOUT_MS = 20_000;
/** What an encoder's operator would set: a second between two attempts. */
const RECONNECT_MS = 1000;
/** The end of the run in which the picture must have moved again, and how many of the ten codes a second must be new. */
const TAIL_MS = 5000;
const MIN_TAIL_PICTURES = 40;

/** Free ports, all held until all are known. */
async function freePorts(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, () => new Promise((resolve, reject) => {
      const server = createServer();
      server.once("error", reject).listen(0, "127.0.0.1", () => resolve(server));
    })),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

async function untilReady(name, admin) {
  const poll = async () => {
    for (;;) {
      const answer = await fetch(`http://127.0.0.1:${admin}/readyz`, { signal: AbortSignal.timeout(2000) }).catch(() => null);
      if (answer?.ok) return;
      await pause(50);
    }
  };
  await within(READY_TIMEOUT_MS, `${name} to be ready`, poll());
}

/** Pushes again whenever a push ended, until told to stop. */
function encoderThatReconnects(rtmp, seconds) {
  const loop = { stopped: false, attempts: 0, current: null };
  const run = async () => {
    while (!loop.stopped) {
      loop.attempts++;
      loop.current = pushPicture(rtmp, seconds);
      await loop.current.exited;
      if (!loop.stopped) await pause(RECONNECT_MS);
    }
  };
  loop.done = run();
  return loop;
}

/** What tells one life of a stream from the next, of each media playlist. */
async function lives(url) {
  const multivariant = await (await fetch(url)).text();
  const found = {};
  for (const uri of mediaPlaylists(multivariant)) {
    const text = await (await fetch(new URL(uri, url))).text();
    const number = (tag) => Number(new RegExp(`#EXT-X-${tag}:(\\d+)`).exec(text)?.[1]);
    found[path.basename(uri)] = {
      first: number("MEDIA-SEQUENCE"),
      next: number("MEDIA-SEQUENCE") + (text.match(/#EXTINF/g) ?? []).length,
      discontinuities: number("DISCONTINUITY-SEQUENCE"),
      map: /#EXT-X-MAP:URI="([^"]+)"/.exec(text)?.[1],
      ended: text.includes("#EXT-X-ENDLIST"),
    };
  }
  return found;
}

async function run(folder) {
  const [originHttp, rtmp, originAdmin, edgeHttp, edgeHttps, edgeAdmin] = await freePorts(6);
  const at = (port) => `{ listen: "127.0.0.1:${port}" }`;
  const [originFile, edgeFile] = [path.join(folder, "origin.yaml"), path.join(folder, "edge.yaml")];
  await writeFile(originFile, `http: ${at(originHttp)}\nrtmp: ${at(rtmp)}\nadmin: ${at(originAdmin)}\napi: { listen: "127.0.0.1:0" }\ndatabase: { url: "sqlite:${path.join(folder, "weir.db")}" }\nstreams:\n  - key: ${KEY}\n`);
  await writeFile(edgeFile, `http: ${at(edgeHttp)}\nhttps: ${at(edgeHttps)}\nadmin: ${at(edgeAdmin)}\norigins:\n  - "http://127.0.0.1:${originHttp}"\n`);
  const startOrigin = () => new Process("origin", options.origin, ["--config", originFile]);

  const first = startOrigin();
  new Process("edge", options.edge, ["--config", edgeFile]);
  await untilReady("the origin", originAdmin);
  await untilReady("the edge", edgeAdmin);
  const encoder = encoderThatReconnects(`rtmp://127.0.0.1:${rtmp}/app/${KEY}`, OVERHEAD_SECONDS + options.before + options.down + options.after);
  const url = `http://127.0.0.1:${edgeHttp}/app/${KEY}/index.m3u8`;
  await untilLive(url, encoder.current);
  await pause(6000);

  const seconds = options.before + options.down + options.after;
  const playing = measure({ url, player: options.player, seconds, keepRecord: true, goOn: true, screenshot: path.join(options.artifacts, "restart.png") });
  playing.catch(() => {}); // told where it is awaited
  await pause(options.before * 1000);
  const old = await lives(url);
  const killedAt = Date.now();
  first.signal("SIGKILL");
  await first.exited;
  await pause(options.down * 1000);
  startOrigin();
  const startedAt = Date.now();
  const { record, ...figures } = await playing;
  const now = await lives(url);
  encoder.stopped = true;
  await encoder.current.stop();
  await encoder.done;

  const found = { ...figures, ...interruption(record, killedAt, TAIL_MS), startedAfterMs: startedAt - killedAt, pushes: encoder.attempts, old, now };
  found.broken = broken(found);
  return found;
}

function broken(found) {
  const list = [];
  if (found.errors.fatal > 0) list.push(`${found.errors.fatal} fatal player error(s)`);
  if (!(found.gapMs <= options["max-gap"] * 1000)) list.push(`${found.gapMs} ms without a new picture, at most ${options["max-gap"]} s allowed`);
  if (found.tailPictures < MIN_TAIL_PICTURES) list.push(`${found.tailPictures} pictures in the last ${TAIL_MS} ms, at least ${MIN_TAIL_PICTURES} wanted`);
  for (const [name, before] of Object.entries(found.old)) {
    const after = found.now[name];
    if (!after) list.push(`${name} is gone`);
    else if (after.first < before.next) list.push(`${name}: segment ${after.first} after ${before.next - 1} had been listed`);
    else if (after.map === before.map) list.push(`${name}: the init section's name was used again`);
    else if (after.ended) list.push(`${name} has ended`);
  }
  return list;
}

let status = 1;
const folder = await mkdtemp(path.join(os.tmpdir(), "weir-restart-"));
try {
  const limit = OVERHEAD_SECONDS + options.before + options.down + options.after;
  const found = await within(limit * 1000, "the restart run", run(folder));
  await mkdir(options.artifacts, { recursive: true });
  await writeFile(path.join(options.artifacts, "restart.json"), JSON.stringify(found, null, 2) + "\n");
  console.log(JSON.stringify({ old: found.old, now: found.now, errors: found.errors, latencyMs: found.latencyMs }));
  console.log(`${found.player} ${found.playerVersion}: origin away for ${found.startedAfterMs} ms, ${found.gapMs} ms without a new picture, ` +
    `${found.tailPictures} pictures in the last ${TAIL_MS} ms, then ${found.tailLatencyMs} ms behind, ${found.errors.fatal} fatal errors, ${found.errors.nonFatal} other`);
  for (const fault of found.broken) console.error(`broken: ${fault}`);
  status = found.broken.length > 0 ? 1 : 0;
} catch (failure) {
  console.error(`restart run failed: ${failure.message}`);
}
if (status !== 0) console.error(outputs());
await stopAll();
await rm(folder, { recursive: true, force: true });
process.exit(status);
