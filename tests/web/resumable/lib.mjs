// What the scripts of resumable clients share: their arguments, a way to break connections, a look at what arrived.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFile, readdir } from "node:fs/promises";
import net from "node:net";
import { join } from "node:path";
import { parseArgs } from "node:util";

// URL [--reference DIR] [--only TEXT]. With a reference, the server is a tus server that keeps its files there, and has
// no /download/. TEXT chooses the steps with that in their titles.
export function readArguments() {
  const options = { reference: { type: "string" }, only: { type: "string", default: "" } };
  const { positionals, values } = parseArgs({ allowPositionals: true, options });
  if (positionals.length !== 1) {
    console.error("usage: SCRIPT URL [--reference DIR] [--only TEXT]");
    process.exit(2);
  }
  return { url: positionals[0].replace(/\/$/, ""), reference: values.reference, only: values.only };
}

// Every step plain and sealed, then those that are neither.
export function choose({ only }, who, steps, others) {
  const both = Object.entries(steps).flatMap(([title, step]) =>
    [false, true].map((encrypted) => {
      const told = `${who}: ${title}${encrypted ? " (sealed)" : ""}`;
      return [told, () => step(encrypted, `${who}, ${title}${encrypted ? " sealed" : ""}.bin`)];
    }),
  );
  const all = [...both, ...Object.entries(others).map(([title, step]) => [`${who}: ${title}`, step])];
  return Object.fromEntries(all.filter(([title]) => title.includes(only)));
}

// A way to the server that can be held and cut. Byte counts are those that clients send, heads of requests included.
export async function openGate(url) {
  const target = new URL(url);
  const pairs = new Set();
  let passed = 0;
  let limit = Infinity;
  let reached = () => {};
  const server = net.createServer({ allowHalfOpen: true }, (near) => {
    const far = net.connect({ port: target.port, host: target.hostname, allowHalfOpen: true });
    const pair = { near, held: false };
    pairs.add(pair);
    const end = () => {
      near.destroy();
      far.destroy();
      pairs.delete(pair);
    };
    near.on("error", end).on("close", end).on("end", () => far.end());
    far.on("error", end).on("close", end).on("end", () => near.end());
    far.on("data", (bytes) => near.write(bytes) || (far.pause(), near.once("drain", () => far.resume())));
    near.on("data", (bytes) => {
      const part = bytes.subarray(0, Math.max(0, limit - passed));
      passed += part.length;
      near.pause();
      // What the other side has not taken yet may be lost with the connection.
      far.write(part, () => {
        if (part.length === bytes.length) return near.resume();
        pair.held = true;
        reached();
      });
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    // Lets so many more bytes through, then none. Resolves when they are through.
    hold: (bytes) =>
      new Promise((resolve) => {
        [passed, limit, reached] = [0, bytes, resolve];
      }),
    // Connections that were held are broken; new ones pass. Resolves when a client in this process has noticed.
    open: async () => {
      limit = Infinity;
      const broken = [...pairs].filter(({ held }) => held).map(({ near }) => near);
      await Promise.all(broken.map((near) => near.closed || once(near.destroy(), "close")));
      await new Promise(setImmediate);
    },
    close: () => {
      for (const { near } of [...pairs]) near.destroy();
      server.close();
    },
  };
}

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

// What tus servers write beside their files; @tus/server and rustus call things by different names.
async function stored(directory, name) {
  for (const entry of await readdir(directory, { recursive: true })) {
    if (!/\.(json|info)$/.test(entry)) continue;
    const about = JSON.parse(await readFile(join(directory, entry), "utf8"));
    if ((about.metadata?.filename ?? about.metadata?.name) !== name) continue;
    return { about, bytes: await readFile(about.path ?? join(directory, about.id)) };
  }
  throw new Error(`nothing of the name ${name} was stored`);
}

// That what was sent is what is there, and sealed if that was asked for.
export async function checkArrived({ url, reference }, name, content, encrypted) {
  if (reference) {
    const { about, bytes } = await stored(reference, name);
    assert.ok(bytes.equals(content), `${name}: ${bytes.length} bytes of ${content.length}, or others`);
    assert.equal(about.metadata.encryption, encrypted ? "true" : undefined);
    return;
  }
  const path = encodeURIComponent(name);
  const answer = await fetch(`${url}/download/${path}`);
  assert.equal(answer.status, 200, await answer.clone().text().then((text) => text.slice(0, 500)));
  const bytes = Buffer.from(await answer.arrayBuffer());
  assert.ok(bytes.equals(content), `${name}: ${bytes.length} bytes of ${content.length}, or others`);
  const status = await (await fetch(`${url}/status/${path}`)).json();
  assert.deepEqual([status.status, status.checksum, status.encryption], ["completed", sha256(content), encrypted]);
  const raw = Buffer.from(await (await fetch(`${url}/download/${path}?decrypt=false`)).arrayBuffer());
  assert.equal(raw.equals(content), !encrypted, "sealed at rest if that was asked for, and only then");
}

// What the server says it can do. Ours can do all of it; a reference may not.
export async function offers({ url, reference }, extension) {
  const answer = await fetch(`${url}/uploads/`, { method: "OPTIONS", headers: { "Tus-Resumable": "1.0.0" } });
  const has = (answer.headers.get("tus-extension") ?? "").split(/\s*,\s*/).includes(extension);
  assert.ok(has || reference, `the server offers no ${extension}`);
  return has;
}
