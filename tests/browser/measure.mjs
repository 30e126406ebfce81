#!/usr/bin/env node
// Glass to glass, start-up and stalls of a stock player on any HLS URL whose picture carries the block code.
import { writeFile } from "node:fs/promises";
import { measure, PLAYERS } from "./lib/measurement.mjs";
import { readOptions } from "./lib/options.mjs";
import { line } from "./lib/report.mjs";
import { brokenLimits } from "./lib/statistics.mjs";

const USAGE = `usage: node measure.mjs --url <multivariant playlist> [options]
  --player ${PLAYERS.join("|")}   default hls
  --seconds N       how long to watch after the first picture, default 30
  --loop-ms N       the source is a clip of N ms, looped in step with Unix time (the demo)
  --freeze-ms N     a picture standing still longer than this is a freeze, default 250
  --out FILE        write the figures as JSON
  --screenshot FILE keep the last picture as PNG
  --insecure        accept a self-signed certificate
limits, exit status 1 when broken:
  --max-stalls N    waits, or freezes, whichever is more
  --max-p50 MS      glass-to-glass latency
  --min-frames N    different pictures read
CHROMIUM names the browser, default /usr/bin/chromium`;

const options = readOptions(USAGE, {
  strings: ["url", "player", "out", "screenshot"],
  numbers: ["seconds", "loop-ms", "freeze-ms", "max-stalls", "max-p50", "min-frames"],
  flags: ["insecure"],
  defaults: { player: "hls", seconds: 30 },
});
if (!options.url || !PLAYERS.includes(options.player)) {
  console.error(USAGE);
  process.exit(2);
}

const figures = await measure({
  url: options.url,
  player: options.player,
  seconds: options.seconds,
  loopMs: options["loop-ms"],
  freezeMs: options["freeze-ms"],
  screenshot: options.screenshot,
  insecure: options.insecure,
});
figures.broken = brokenLimits(figures, {
  maxStalls: options["max-stalls"],
  maxP50: options["max-p50"],
  minFrames: options["min-frames"],
});
console.log(JSON.stringify(figures));
console.log(line(figures));
if (options.out) await writeFile(options.out, JSON.stringify(figures, null, 2) + "\n");
for (const limit of figures.broken) console.error(`broken: ${limit}`);
process.exit(figures.broken.length > 0 ? 1 : 0);
