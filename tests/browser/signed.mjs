#!/usr/bin/env node
// Signed playback as a viewer meets it: a stream that needs tickets is pushed, stock hls.js, the player page and ffmpeg
// play it by the addresses that the API hands out, and none of them plays it without.
import { spawnSync } from "node:child_process";
import { chromium } from "playwright-core";
import { OVERHEAD_SECONDS, pushPicture, startWeir, untilLive } from "./lib/broadcast.mjs";
import { measure } from "./lib/measurement.mjs";
import { readOptions } from "./lib/options.mjs";
import { outputs, stopAll, within } from "./lib/processes.mjs";
import { brokenLimits } from "./lib/statistics.mjs";

const USAGE = `usage: node signed.mjs --weir <program> [--seconds N]
  --seconds N   how long each player watches, default 10
PYTHON names a Python 3 with numpy, CHROMIUM the browser, FFMPEG the ffmpeg`;
const options = readOptions(USAGE, { strings: ["weir"], numbers: ["seconds"], defaults: { seconds: 10 } });
if (!options.weir) {
  console.error(USAGE);
  process.exit(2);
}

const FFMPEG = process.env.FFMPEG ?? "ffmpeg";
const FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"];

function expect(holds, what) {
  if (!holds) throw new Error(what);
  console.log(`ok: ${what}`);
}

/** A call of the API: its JSON answer. */
async function call(ready, method, path, body) {
  const response = await fetch(`${ready.origin.api}/v1/projects/default/streams${path}`, {
    method,
    headers: { authorization: `Bearer ${ready.firstKey}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

/** Whether ffmpeg decodes three seconds of this. */
function ffmpegPlays(url) {
  const run = spawnSync(FFMPEG, ["-v", "error", "-i", url, "-t", "3", "-f", "null", "-"], { timeout: 40_000, encoding: "utf8" });
  return { plays: run.status === 0 && !run.stderr.includes("HTTP error"), told: run.stderr };
}

/** What the page in front of everybody shows: waits until it plays, or has said no. */
async function playerPage(url) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: false, args: FLAGS });
  try {
    const page = await browser.newPage();
    const referrers = new Set();
    page.on("request", (request) => referrers.add(request.headers().referer ?? ""));
    await page.goto(url);
    const state = await page.waitForFunction(() => (window.weir?.stats().playing ? "playing" : window.weir?.stats().state === "refused" ? "refused" : null), null, { timeout: 30_000 });
    return { state: await state.jsonValue(), referrers: [...referrers] };
  } finally {
    await browser.close();
  }
}

async function run() {
  const { ready } = await startWeir(options.weir);
  const stream = await call(ready, "POST", "", { streamKey: "signed", signedPlayback: true });
  const seconds = 4 * options.seconds + OVERHEAD_SECONDS;
  const rtmp = `${ready.origin.rtmp.replace(/\/app$/, "/key")}/signed?t=${stream.ingest.token}`;
  const encoder = pushPicture(rtmp, seconds);
  const ticket = await call(ready, "POST", `/${stream.id}/playback-ticket`, { expiresInSec: 600 });
  const { llhls, llhlsDirect, player } = ticket.playbackUrls;
  await untilLive(llhls, encoder, /#EXTINF/);

  const bare = llhls.split("?")[0];
  const refused = await fetch(bare);
  expect(refused.status === 401 && (await refused.json()).error.code === "ticket_missing", "without a ticket: 401 and why");
  for (const url of [llhls, llhlsDirect]) {
    const figures = await measure({ url, player: "hls", seconds: options.seconds, insecure: true });
    const broken = brokenLimits(figures, { maxStalls: 0, maxP50: 4000, minFrames: options.seconds * 8 });
    expect(broken.length === 0, `stock hls.js plays ${new URL(url).pathname} ${broken.join("; ")}`);
  }
  const none = await measure({ url: bare, player: "hls", seconds: 2, insecure: true });
  expect(none.frames.distinct === 0 && none.errors.fatal > 0, "stock hls.js shows nothing without a ticket");

  const page = await playerPage(player);
  expect(page.state === "playing", "the player page carries its ticket through");
  expect(page.referrers.every((referrer) => !referrer.includes("signature")), "and tells it to nobody as a referrer");
  expect((await playerPage(player.split("?")[0])).state === "refused", "the player page says no without one");

  const played = ffmpegPlays(llhls);
  expect(played.plays, `ffmpeg plays the signed address ${played.told}`);
  const child = new URL(llhls);
  child.pathname = child.pathname.replace("index.m3u8", "d/video.m3u8");
  const sent = ffmpegPlays(child.href);
  expect(sent.plays, `ffmpeg is sent to the ticketed address of a signed child ${sent.told}`);
  expect(!ffmpegPlays(bare).plays, "ffmpeg plays nothing without a ticket");

  const changed = await call(ready, "PUT", `/${stream.id}/signed-playback`, { enabled: true, rotateSecret: true });
  expect(changed.previousSecret && (await fetch(llhls)).status === 200, "a ticket outlives one rotation");
  await call(ready, "PUT", `/${stream.id}/signed-playback`, { enabled: true, revokePrevious: true });
  const gone = async () => {
    while ((await fetch(llhls)).status !== 401) await new Promise((resolve) => setTimeout(resolve, 50));
    return true;
  };
  expect(await within(10_000, "the old secret to be forgotten", gone()), "and not its revocation");
  expect(!/signature=|\/~/.test(outputs()), "no log has a ticket in it");
}

let status = 1;
try {
  await within((8 * options.seconds + 4 * OVERHEAD_SECONDS) * 1000, "the signed-playback run", run());
  status = 0;
} catch (failure) {
  console.error(`signed-playback run failed: ${failure.message}`);
  console.error(outputs());
}
await stopAll();
process.exit(status);
