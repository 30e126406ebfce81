#!/usr/bin/env node
// The upload fails under a viewer of the resilient playlist: it stalls for a while, its encoder dies and comes back, or the primary dies
// beside a running backup. The viewer's clock must go on all the while, and the picture be as far behind afterwards as before.
// Before it: lib/site.mjs and lib/broadcast.mjs. After it: lib/statistics.mjs judges.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { pushPicture, untilLive } from "./lib/broadcast.mjs";
import { measure, PLAYERS } from "./lib/measurement.mjs";
import { readOptions } from "./lib/options.mjs";
import { outputs, stopAll, within } from "./lib/processes.mjs";
import { startRelay, startSite, until } from "./lib/site.mjs";
import { clockLoss, clockPauses, latencyBetween } from "./lib/statistics.mjs";

const USAGE = `usage: node resilience.mjs --origin <program> --edge <program> [options]
  --player LIST     of ${PLAYERS.join(", ")}: all at once, default hls
  --case NAME       what happens: relay (the line holds all bytes), stop (SIGSTOP of the encoder), lossy (the line stalls a fifth of the
                    time), break (the encoder is killed and started again), size, rate, sound, codec, opus (the same, and it comes back with
                    another picture size, another sampling rate, without sound, with AV1 or with Opus, then as it was), switch (primary
                    killed beside a backup)
  --seconds LIST    how long each time, default 0.3,0.5,1,2,4,8; an encoder is away at least as long as it takes to start
  --rounds N        how often each, default 1
  --every N         seconds between, default 5
  --ffmpeg PROGRAM  for codec and opus: one that pushes AV1 and Opus by Enhanced RTMP (8 or newer)
  --slate FILE      the operator's picture for gaps of more than 3 s
  --direct          watch the direct playlist instead, for comparison
  --size WxH        of the picture, default 640x360
  --max-pause N     longest time in which the clock may stand still, in milliseconds, default 250
  --max-drift N     how much further behind the picture may be afterwards, in milliseconds, default 200 (one part)
  --artifacts DIR   where resilience.json goes, default artifacts
PYTHON names a Python 3 with numpy, default /usr/bin/python3; CHROMIUM the browser, default /usr/bin/chromium`;

/** What an encoder comes back with after a change: options of gen.py. */
const CHANGES = { size: ["--size", "480x272"], rate: ["--rate", "44100"], sound: ["--no-sound"], codec: ["--vcodec", "av1"], opus: ["--acodec", "opus"] };
const CASES = ["relay", "stop", "lossy", "break", "switch", ...Object.keys(CHANGES)];
const options = readOptions(USAGE, {
  strings: ["origin", "edge", "player", "case", "seconds", "size", "slate", "ffmpeg", "artifacts"],
  numbers: ["rounds", "every", "max-pause", "max-drift"],
  flags: ["direct"],
  defaults: { player: "hls", case: "relay", seconds: "0.3,0.5,1,2,4,8", rounds: 1, every: 5, size: "640x360", "max-pause": 250, "max-drift": 200, artifacts: "artifacts" },
});
const players = options.player.split(",");
if (!options.origin || !options.edge || !players.every((player) => PLAYERS.includes(player)) || !CASES.includes(options.case)) {
  console.error(USAGE);
  process.exit(2);
}

const KEY = "show";
const LEAD_SECONDS = 8;
/** From the last event to the end; the latency is read in its last five seconds. */
const TAIL_SECONDS = 15;
const WINDOW_MS = 5000;
/** Before each event, how long the latency is looked at. */
const AT_EACH_MS = 1500;
const OVERHEAD_SECONDS = 90;
/** Large enough for the code in the picture, and cheap to draw. */
const VIEWPORT = { width: 640, height: 360 };
const times = Array.from({ length: options.rounds }, () => options.seconds.split(",").map(Number)).flat();
const seconds = LEAD_SECONDS + times.reduce((sum, time) => sum + time + options.every, 0) + TAIL_SECONDS;

async function run() {
  const more = options.slate ? `resilience: { slate: { file: "${path.resolve(options.slate)}", after: 3s } }\n` : "";
  const site = await startSite({ origin: options.origin, edge: options.edge, key: KEY, more });
  const relay = await startRelay(site.rtmpPort);
  const push = (slot = "", more = []) => pushPicture(`rtmp://127.0.0.1:${relay.port}/app/${KEY}${slot}`, 2 * seconds + OVERHEAD_SECONDS, options.size, more);
  // An encoder takes a moment from its start to its connection: what is asked for is how long it is away.
  const started = performance.now();
  const startUp = relay.arrival().then(() => performance.now() - started);
  let encoder = push();
  const url = options.direct ? site.direct : site.resilient;
  await untilLive(url, encoder);
  const startUpMs = await startUp;
  const away = (time) => pause(Math.max(0, time * 1000 - startUpMs));
  let backup = options.case === "switch" ? push("/backup") : null;
  await pause(8000);

  let changes = 0;
  const change = async (time) => {
    encoder.signal("SIGKILL");
    await encoder.exited;
    await away(time);
    encoder = push("", changes++ % 2 === 0 ? [...CHANGES[options.case], ...(options.ffmpeg ? ["--ffmpeg", options.ffmpeg] : [])] : []);
  };
  const happens = {
    relay: async (time) => {
      relay.hold();
      await pause(time * 1000);
      relay.release();
    },
    stop: async (time) => {
      encoder.signal("SIGSTOP");
      await pause(time * 1000);
      encoder.signal("SIGCONT");
    },
    lossy: async (time) => {
      for (const end = Date.now() + time * 1000; Date.now() < end; ) {
        relay.hold();
        await pause(200);
        relay.release();
        await pause(800);
      }
    },
    break: async (time) => {
      encoder.signal("SIGKILL");
      await encoder.exited;
      await away(time);
      encoder = push();
    },
    size: change,
    rate: change,
    sound: change,
    codec: change,
    opus: change,
    switch: async (time) => {
      await until("both to send", async () => (await site.stream()).live && (await site.stream()).backupLive);
      const primaryShown = (await site.stream()).publishers.some((one) => one.shown && one.slot === "primary");
      const victim = primaryShown ? encoder : backup;
      victim.signal("SIGKILL");
      await victim.exited;
      await pause(time * 1000);
      if (primaryShown) encoder = push();
      else backup = push("/backup");
    },
  }[options.case];

  const playing = Promise.all(players.map((player) => measure({ url, player, seconds, viewport: VIEWPORT, keepRecord: true, goOn: true })));
  playing.catch(() => {}); // told where it is awaited
  await pause(LEAD_SECONDS * 1000 + 3000);
  const marks = [];
  for (const time of times) {
    marks.push({ wall: Date.now(), time });
    await happens(time);
    await pause(options.every * 1000);
  }
  const watched = await playing;
  const stream = await site.stream();
  relay.close();
  await site.forget();
  return watched.map((seen) => judged(seen, marks, stream?.resilience));
}

/** What a viewer saw of all this, and which limits it breaks. */
function judged({ record, ...figures }, marks, resilience) {
  const first = marks[0].wall;
  const found = {
    ...figures,
    case: options.case,
    flavour: options.direct ? "direct" : "resilient",
    events: marks.length,
    pauses: clockPauses(record),
    clockLossMs: clockLoss(record),
    waitsMs: record.waits.map(([from, to]) => Math.round((to ?? record.endedAt) - from)),
    latencyBeforeMs: latencyBetween(record, first - WINDOW_MS, first),
    latencyAfterMs: latencyBetween(record, Date.now() - 60_000, Infinity, WINDOW_MS),
    latencyAtEachMs: marks.map(({ wall }) => latencyBetween(record, wall - AT_EACH_MS, wall)),
    resilience,
  };
  found.broken = [];
  const longest = Math.max(found.pauses.longestMs, ...found.waitsMs);
  if (found.errors.fatal > 0) found.broken.push(`${found.errors.fatal} fatal player error(s)`);
  if (longest > options["max-pause"]) found.broken.push(`the clock stood still for ${longest} ms, at most ${options["max-pause"]} allowed`);
  const drift = found.latencyAfterMs - found.latencyBeforeMs;
  if (!(drift <= options["max-drift"])) found.broken.push(`${drift} ms further behind than before, at most ${options["max-drift"]} allowed`);
  return found;
}

let status = 1;
try {
  const all = await within((2 * OVERHEAD_SECONDS + 2 * seconds) * 1000, "the resilience run", run());
  await mkdir(options.artifacts, { recursive: true });
  for (const found of all) {
    await writeFile(path.join(options.artifacts, `resilience-${found.case}-${found.player}.json`), JSON.stringify(found, null, 2) + "\n");
    console.log(JSON.stringify({ errors: found.errors, pauses: found.pauses, waitsMs: found.waitsMs, clockLossMs: found.clockLossMs, latencyAtEachMs: found.latencyAtEachMs, resilience: found.resilience, latencyMs: found.latencyMs }));
    console.log(`${found.player} ${found.playerVersion}, ${found.flavour}: ${found.events} × ${found.case} of ${options.seconds} s, longest pause of the clock ` +
      `${found.pauses.longestMs} ms, ${found.waitsMs.length} waits, ${found.latencyBeforeMs} ms behind before, ${found.latencyAfterMs} ms after, ` +
      `${found.errors.fatal} fatal errors, ${found.errors.nonFatal} other`);
    for (const fault of found.broken) console.error(`broken: ${fault}`);
  }
  status = all.some((found) => found.broken.length > 0) ? 1 : 0;
} catch (failure) {
  console.error(`resilience run failed: ${failure.message}`);
}
if (status !== 0) console.error(outputs());
await stopAll();
process.exit(status);
