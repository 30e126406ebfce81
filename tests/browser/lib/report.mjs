// Figures → lines for people.

const seconds = (ms) => (ms === null || ms === undefined ? "–" : (ms / 1000).toFixed(2));

/** One line that says how a run went. */
export function line(figures) {
  const { startup, latencyMs, stalls, frames, errors } = figures;
  return [
    figures.player.padEnd(12),
    `start ${seconds(startup.navigationToFirstFrameMs)} s (play ${seconds(startup.playToFirstFrameMs)} s)`,
    `latency p50 ${seconds(latencyMs.p50)} p95 ${seconds(latencyMs.p95)} max ${seconds(latencyMs.max)} s`,
    `waits ${stalls.waiting} (${seconds(stalls.waitingMs)} s)`,
    `freezes ${stalls.freezes} (${seconds(stalls.freezeMs)} s)`,
    `pictures ${frames.distinct}`,
    `dropped ${frames.dropped ?? "–"}`,
    `errors ${errors.fatal} fatal, ${errors.nonFatal} other`,
  ].join(" | ");
}

const COLUMNS = [
  ["player", (f) => `${f.player} ${f.playerVersion ?? ""}`.trim()],
  ["part target", (f) => f.partTarget ?? "–"],
  ["start s", (f) => seconds(f.startup.navigationToFirstFrameMs)],
  ["p50 s", (f) => seconds(f.latencyMs.p50)],
  ["p95 s", (f) => seconds(f.latencyMs.p95)],
  ["max s", (f) => seconds(f.latencyMs.max)],
  ["waits", (f) => f.stalls.waiting],
  ["freezes", (f) => f.stalls.freezes],
  ["frozen s", (f) => seconds(f.stalls.freezeMs)],
  ["dropped", (f) => f.frames.dropped ?? "–"],
  ["fatal", (f) => f.errors.fatal],
];

/** A markdown table, one row per run. */
export function table(rows) {
  const row = (cells) => `| ${cells.join(" | ")} |`;
  return [row(COLUMNS.map(([name]) => name)), row(COLUMNS.map(() => "---")), ...rows.map((f) => row(COLUMNS.map(([, cell]) => cell(f))))].join("\n");
}
