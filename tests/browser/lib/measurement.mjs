// One run of one stock player in a fresh headless Chromium: start, watch, collect, close.
// Before it: measure.mjs, e2e.mjs or players.mjs. Beside it: lib/server.mjs serves the page. After it: lib/statistics.mjs.
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { chromium } from "playwright-core";
import { servePages } from "./server.mjs";
import { summarise } from "./statistics.mjs";

/** A page of this name stands in pages/. */
export const PLAYERS = ["hls", "shaka", "media-chrome", "video.js"];

const PAGE_OF = { hls: "hls.js", shaka: "shaka", "media-chrome": "media-chrome", "video.js": "video.js" };
const FLAGS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
];
/** How long the first picture may take before the run is called black. */
const FIRST_FRAME_TIMEOUT_MS = 30_000;
/** Console lines kept for the report of a failed run. */
const MAX_CONSOLE_LINES = 40;

/**
 * A fresh headless Chromium with the page of a stock player that plays `url`. Whoever opens it closes it.
 * @param {{url: string, player: string, viewport?: {width: number, height: number}, insecure?: boolean}} run
 */
export async function open(run) {
  const profile = await mkdtemp(path.join(os.tmpdir(), "weir-browser-"));
  const pages = await servePages();
  let browser;
  const close = async () => {
    await browser?.close().catch(() => {});
    await pages.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  try {
    browser = await chromium.launchPersistentContext(profile, {
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      headless: false, // FLAGS asks for the new headless mode, which is the real browser
      args: FLAGS,
      viewport: run.viewport ?? { width: 1280, height: 720 },
      ignoreHTTPSErrors: Boolean(run.insecure),
      timeout: 60_000,
    });
    const page = browser.pages()[0] ?? (await browser.newPage());
    const consoleLines = [];
    page.on("console", (message) => {
      if (consoleLines.length < MAX_CONSOLE_LINES && ["error", "warning"].includes(message.type())) consoleLines.push(message.text().slice(0, 300));
    });
    await page.goto(`${pages.base}/pages/${PAGE_OF[run.player]}.html?url=${encodeURIComponent(run.url)}`);
    return { browser, page, consoleLines, close };
  } catch (failure) {
    await close();
    throw failure;
  }
}

/**
 * Plays `url` for `seconds` after the first picture, or until the player calls an error fatal; with `goOn`, whatever it calls it.
 * @param {{url: string, player: string, seconds: number, loopMs?: number, freezeMs?: number, viewport?: {width: number, height: number}, screenshot?: string, insecure?: boolean, keepRecord?: boolean}} run
 * @returns figures as summarise() gives them, with `player`, `url`, `browser` and the page's console
 */
export async function measure(run) {
  const { browser, page, consoleLines, close } = await open(run);
  try {
    let began;
    await page
      .waitForFunction(() => window.probe?.record.frames.length > 0 || window.probe?.record.fatalErrors > 0, null, { timeout: FIRST_FRAME_TIMEOUT_MS })
      .then(() => (began = performance.now()))
      .then(() => page.waitForFunction(() => window.probe.record.fatalErrors > 0, null, { timeout: run.seconds * 1000, polling: 250 }).catch(() => {}))
      .then(() => (run.goOn ? pause(Math.max(0, began + run.seconds * 1000 - performance.now())) : null))
      .catch((failure) => consoleLines.push(`no picture: ${failure.message.split("\n")[0]}`));
    // Collected before the screenshot: taking one holds the page up.
    const record = await page.evaluate(() => window.probe.finish());
    if (run.screenshot) {
      await mkdir(path.dirname(path.resolve(run.screenshot)), { recursive: true });
      await page.screenshot({ path: run.screenshot });
    }
    return {
      player: run.player,
      url: run.url,
      seconds: run.seconds,
      ...summarise(record, run),
      browser: `Chromium ${browser.browser()?.version() ?? (await page.evaluate(() => navigator.userAgent))}`,
      console: consoleLines,
      ...(run.keepRecord ? { record } : {}),
    };
  } finally {
    await close();
  }
}
