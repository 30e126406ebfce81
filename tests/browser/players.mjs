#!/usr/bin/env node
// The table of figures: every stock player × several part targets, each against a fresh Weir. Prints markdown.
import { writeFile } from "node:fs/promises";
import { broadcast } from "./lib/broadcast.mjs";
import { measure, PLAYERS } from "./lib/measurement.mjs";
import { readOptions } from "./lib/options.mjs";
import { outputs, stopAll } from "./lib/processes.mjs";
import { line, table } from "./lib/report.mjs";

const USAGE = `usage: node players.mjs --weir <program> [options]
  --players LIST       default ${PLAYERS.join(",")}
  --part-targets LIST  default 100ms,200ms,333ms
  --seconds N          how long each run watches, default 60
  --warm-up N          how long the stream is live before somebody watches, default 10
  --tls                play from the edge's HTTPS address (HTTP/2) instead of plain HTTP
  --out FILE           write all figures as JSON
PYTHON names a Python 3 with numpy, default /usr/bin/python3; CHROMIUM the browser, default /usr/bin/chromium`;

const options = readOptions(USAGE, {
  strings: ["weir", "players", "part-targets", "out"],
  numbers: ["seconds", "warm-up"],
  flags: ["tls"],
  defaults: { players: PLAYERS.join(","), "part-targets": "100ms,200ms,333ms", seconds: 60, "warm-up": 10 },
});
const players = options.players.split(",");
if (!options.weir || !players.every((name) => PLAYERS.includes(name))) {
  console.error(USAGE);
  process.exit(2);
}

async function run(player, partTarget) {
  const { ready, stream } = await broadcast(options.weir, {
    more: ["--part-target", partTarget],
    seconds: options.seconds,
    warmUp: options["warm-up"],
  });
  const address = new URL(stream.playback.llhlsDirect);
  const url = options.tls ? new URL(address.pathname, ready.edge.https).href : address.href;
  return { ...(await measure({ url, player, seconds: options.seconds, insecure: true })), partTarget };
}

const rows = [];
let failed = false;
for (const partTarget of options["part-targets"].split(",")) {
  for (const player of players) {
    try {
      const figures = await run(player, partTarget);
      rows.push(figures);
      console.error(`${partTarget.padEnd(6)} ${line(figures)}`);
    } catch (failure) {
      failed = true;
      console.error(`${partTarget} ${player}: ${failure.message}\n${outputs()}`);
    }
    await stopAll();
  }
}
console.log(table(rows));
if (options.out) await writeFile(options.out, JSON.stringify(rows, null, 2) + "\n");
process.exit(failed ? 1 : 0);
