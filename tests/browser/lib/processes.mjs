// Child processes that never outlive the script: each in its own process group, its last output kept for the report of a failure.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** Lines of each output kept in memory. */
const KEPT_LINES = 200;
/** What a process gets between the polite signal and the other one. */
const GRACE_MS = 5000;

const running = new Set();

export class Process {
  /** @param {string} name what the log calls it */
  constructor(name, command, args, { env } = {}) {
    this.name = name;
    this.lines = [];
    this.child = spawn(command, args, { detached: true, stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
    this.exited = new Promise((resolve) => {
      this.child.once("error", (failure) => resolve(`could not start: ${failure.message}`));
      this.child.once("exit", (code, signal) => resolve(signal ? `ended by ${signal}` : `exit status ${code}`));
    });
    this.exited.then((how) => {
      this.keep(how);
      this.ended = how;
    });
    this.stdout = createInterface({ input: this.child.stdout });
    this.stdout.on("line", (text) => this.keep(text));
    createInterface({ input: this.child.stderr }).on("line", (text) => this.keep(text));
    running.add(this);
  }

  keep(text) {
    this.lines.push(text);
    if (this.lines.length > KEPT_LINES) this.lines.shift();
  }

  /** The first line of standard output, or an error that says why there was none. */
  async firstLine(timeoutMs) {
    const line = once(this.stdout, "line").then(([text]) => text);
    const silence = this.exited.then((how) => Promise.reject(new Error(`${this.name} printed nothing: ${how}`)));
    return within(timeoutMs, `${this.name} to print its first line`, Promise.race([line, silence]));
  }

  /** Asks the whole group to end, then makes it. */
  async stop() {
    this.signal("SIGTERM");
    const grace = setTimeout(() => this.signal("SIGKILL"), GRACE_MS);
    await this.exited;
    clearTimeout(grace);
    this.signal("SIGKILL"); // what the leader left behind
    running.delete(this);
    return this.ended;
  }

  signal(name) {
    if (this.child.pid === undefined) return;
    try {
      process.kill(-this.child.pid, name);
    } catch (failure) {
      if (failure.code !== "ESRCH") throw failure;
    }
  }
}

/** Rejects when `promise` takes longer than `timeoutMs`. */
export async function within(timeoutMs, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${timeoutMs} ms for ${what}`)), timeoutMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Ends everything still running, newest first. */
export async function stopAll() {
  for (const one of [...running].reverse()) await one.stop();
}

/** The kept output of everything still running or failed, for the log of a failure. */
export function outputs() {
  return [...running].map((one) => `--- ${one.name} ---\n${one.lines.join("\n")}`).join("\n");
}

for (const [signal, status] of [["SIGINT", 130], ["SIGTERM", 143]]) {
  process.once(signal, () => stopAll().finally(() => process.exit(status)));
}
