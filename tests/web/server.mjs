// The real server on a free port, in a directory of its own; and an upload that is sent when a test says so.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

export async function startServer(binary, settings = {}) {
  const directory = await mkdtemp(join(tmpdir(), "sft-web-"));
  const server = spawn(binary, ["serve", "--port", "0", "--server-host", "127.0.0.1"], {
    cwd: directory,
    env: { ...settings },
    stdio: ["ignore", "ignore", "pipe"],
  });
  // A test that failed leaves no server behind.
  process.once("exit", () => server.kill("SIGKILL"));
  let log = "";
  const url = await new Promise((resolve, reject) => {
    server.stderr.on("data", (piece) => {
      log += piece;
      const found = log.match(/listening on (http:\/\/[\d.:]+)/);
      if (found) resolve(found[1]);
    });
    server.once("exit", () => reject(new Error(`the server ended:\n${log}`)));
  });
  const stop = async () => {
    const ended = once(server, "exit");
    server.kill("SIGTERM");
    const [status] = await ended;
    await rm(directory, { recursive: true });
    if (status !== 0 || /panicked/.test(log)) throw new Error(`the server ended with ${status}:\n${log}`);
  };
  return { url, stop };
}

// `more` sends the next bytes; the answer comes when all are sent.
export function beginPut(url, name, size) {
  const request = http.request(`${url}/files/${encodeURIComponent(name)}`, {
    method: "PUT",
    headers: { "Content-Length": size },
  });
  const answer = new Promise((resolve, reject) => {
    request.on("error", reject);
    request.on("response", async (response) => {
      let text = "";
      for await (const piece of response) text += piece;
      resolve(JSON.parse(text));
    });
  });
  const more = (bytes) => new Promise((resolve) => request.write(bytes, resolve));
  return { more, answer, hangUp: () => request.destroy() };
}

// Rejects when something takes for ever.
export function within(promise, what, seconds = 30) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`for ever: ${what}`)), seconds * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Runs steps in turn and says what went well; a failure ends the process.
export async function run(steps) {
  for (const [name, step] of Object.entries(steps)) {
    try {
      await within(step(), name, 60);
      console.log(`ok: ${name}`);
    } catch (error) {
      console.error(`FAILED: ${name}`);
      console.error(error);
      process.exit(1);
    }
  }
}
