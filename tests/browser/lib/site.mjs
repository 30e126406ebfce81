// An origin and an edge as two programs on free ports, and a relay in front of the origin that can hold an encoder's bytes.
// Before it: resilience.mjs. Beside it: lib/broadcast.mjs pushes.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Process, within } from "./processes.mjs";

const READY_TIMEOUT_MS = 20_000;

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

/** Waits until `holds` does. */
export async function until(what, holds) {
  const poll = async () => {
    while (!(await holds().catch(() => false))) await pause(50);
  };
  await within(READY_TIMEOUT_MS, what, poll());
}

/**
 * Starts both nodes for one stream.
 * @param {{origin: string, edge: string, key: string, more?: string}} programs paths, the stream's key, further lines of the origin's configuration
 */
export async function startSite({ origin, edge, key, more = "" }) {
  const folder = await mkdtemp(path.join(os.tmpdir(), "weir-site-"));
  const [originHttp, rtmp, originAdmin, edgeHttp, edgeAdmin] = await freePorts(5);
  const at = (port) => `{ listen: "127.0.0.1:${port}" }`;
  const [originFile, edgeFile] = [path.join(folder, "origin.yaml"), path.join(folder, "edge.yaml")];
  await writeFile(originFile, `http: ${at(originHttp)}\nrtmp: ${at(rtmp)}\nadmin: ${at(originAdmin)}\napi: { listen: "127.0.0.1:0" }\n` +
    `database: { url: "sqlite::memory:" }\nstreams:\n  - key: ${key}\n${more}`);
  await writeFile(edgeFile, `http: ${at(edgeHttp)}\nhttps: { listen: "127.0.0.1:0" }\nadmin: ${at(edgeAdmin)}\norigins:\n  - "http://127.0.0.1:${originHttp}"\n`);
  new Process("origin", origin, ["--config", originFile]);
  new Process("edge", edge, ["--config", edgeFile]);
  for (const admin of [originAdmin, edgeAdmin]) await until("readiness", async () => (await fetch(`http://127.0.0.1:${admin}/readyz`)).ok);
  return {
    rtmpPort: rtmp,
    resilient: `http://127.0.0.1:${edgeHttp}/app/${key}/index.m3u8`,
    direct: `http://127.0.0.1:${edgeHttp}/app/${key}/d/llhls.m3u8`,
    stream: async () => (await (await fetch(`http://127.0.0.1:${originAdmin}/streams`)).json()).streams[0],
    forget: () => rm(folder, { recursive: true, force: true }),
  };
}

/** A TCP relay to `port` that can hold what comes and let it go at once later, as a line that stalls does. */
export async function startRelay(port) {
  const pairs = new Set();
  let held = false;
  let arrived = () => {};
  const server = createServer((client) => {
    arrived();
    const upstream = connect(port, "127.0.0.1");
    const pair = { client, upstream };
    pairs.add(pair);
    const end = () => {
      pairs.delete(pair);
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) socket.on("error", end).on("close", end);
    client.pipe(upstream).pipe(client);
    if (held) client.pause();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const set = (hold) => {
    held = hold;
    for (const { client } of pairs) hold ? client.pause() : client.resume();
  };
  return {
    port: server.address().port,
    hold: () => set(true),
    release: () => set(false),
    /** Resolves with the next connection. */
    arrival: () => new Promise((resolve) => (arrived = resolve)),
    close: () => {
      for (const { client, upstream } of pairs) client.destroy(), upstream.destroy();
      server.close();
    },
  };
}
