// Serves the player pages and the libraries in node_modules on a free loopback port, and nothing else.
// The media comes from another port, so every run also exercises CORS.
import { createReadStream } from "node:fs";
import { realpath, stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const SERVED = ["/pages/", "/node_modules/"];
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
};

/** @returns {Promise<{base: string, close: () => Promise<void>}>} */
export async function servePages() {
  const server = createServer((request, response) => {
    answer(request, response).catch(() => {
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(request, response) {
  const wanted = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
  const file = path.normalize(path.join(ROOT, wanted));
  const inside = SERVED.some((folder) => file.startsWith(path.join(ROOT, folder)));
  const found = inside && (await stat(file).catch(() => null));
  if (!found || !found.isFile() || !(await realpath(file)).startsWith(await realpath(ROOT))) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, {
    "content-type": TYPES[path.extname(file)] ?? "application/octet-stream",
    "content-length": found.size,
    "cache-control": "no-store",
  });
  createReadStream(file).pipe(response);
}
