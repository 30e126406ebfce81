#!/usr/bin/env node
// End to end, as a viewer would see it: ffmpeg pushes to the origin, Chromium with stock hls.js plays from the edge.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { broadcast, OVERHEAD_SECONDS } from "./lib/broadcast.mjs";
import { measure, PLAYERS } from "./lib/measurement.mjs";
import { readOptions } from "./lib/options.mjs";
import { outputs, stopAll, within } from "./lib/processes.mjs";
import { line } from "./lib/report.mjs";
import { brokenLimits } from "./lib/statistics.mjs";

const USAGE = `usage: node e2e.mjs --weir <program> [options]
  --player NAME      ${PLAYERS.join("|")}, default hls
  --seconds N        how long to watch, default 30
  --warm-up N        how long the stream is live before somebody watches, default 6
  --part-target T    handed to weir, e.g. 200ms
  --lossy-link PROGRAM  push over SRT through this program (the example lossy_link of tests/) …
  --loss PERCENT     … which loses so much of all datagrams, both ways; default 5
  --artifacts DIR    where e2e.png and e2e.json go, default artifacts
  --max-p50 MS       glass-to-glass limit, default 3000
PYTHON names a Python 3 with numpy, default /usr/bin/python3; CHROMIUM the browser, default /usr/bin/chromium`;

const options = readOptions(USAGE, {
  strings: ["weir", "player", "part-target", "lossy-link", "artifacts"],
  numbers: ["seconds", "warm-up", "loss", "max-p50"],
  defaults: { player: "hls", seconds: 30, "warm-up": 6, loss: 5, artifacts: "artifacts", "max-p50": 3000 },
});
if (!options.weir || !PLAYERS.includes(options.player)) {
  console.error(USAGE);
  process.exit(2);
}

async function run() {
  const { stream, liveAfterMs } = await broadcast(options.weir, {
    more: options["part-target"] ? ["--part-target", options["part-target"]] : [],
    seconds: options.seconds,
    warmUp: options["warm-up"],
    link: options["lossy-link"],
    loss: options.loss,
  });
  const figures = await measure({
    url: stream.playback.llhlsDirect,
    player: options.player,
    seconds: options.seconds,
    insecure: true,
    screenshot: path.join(options.artifacts, "e2e.png"),
  });
  figures.pushToPlaylistMs = Math.round(liveAfterMs);
  // Ten codes are read a second; eight leave room for a slow machine, none for a still picture.
  figures.broken = brokenLimits(figures, { maxStalls: 0, maxP50: options["max-p50"], minFrames: options.seconds * 8 });
  return figures;
}

let status = 1;
try {
  const figures = await within((options["warm-up"] + options.seconds + OVERHEAD_SECONDS) * 1000, "the end-to-end run", run());
  await mkdir(options.artifacts, { recursive: true });
  await writeFile(path.join(options.artifacts, "e2e.json"), JSON.stringify(figures, null, 2) + "\n");
  console.log(JSON.stringify(figures));
  console.log(line(figures));
  for (const limit of figures.broken) console.error(`broken: ${limit}`);
  status = figures.broken.length > 0 ? 1 : 0;
} catch (failure) {
  console.error(`end-to-end run failed: ${failure.message}`);
}
if (status !== 0) console.error(outputs());
await stopAll();
process.exit(status);
