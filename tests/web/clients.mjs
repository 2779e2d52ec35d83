// The flows of a frontend with socket.io-client, and of a plain WebSocket client. Usage: node clients.mjs SFT
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import net from "node:net";
import { resolve } from "node:path";
import { io } from "socket.io-client";
import WebSocket from "ws";
import { beginPut, run, startServer } from "./server.mjs";

const server = await startServer(resolve(process.argv[2]));
const bytes = randomBytes(4_000_000);
const digest = createHash("sha256").update(bytes).digest("hex");
const ended = (update) => ["completed", "failed", "cancelled"].includes(update.status);

// Collects events of one name; `until` waits for one of which something is so.
function collect(socket, name) {
  const seen = [];
  const waiting = new Set();
  socket.on(name, (data) => {
    seen.push(data);
    for (const look of waiting) look();
  });
  const until = (isSo) =>
    new Promise((resolve) => {
      const look = () => {
        const found = seen.find(isSo);
        if (found) waiting.delete(look), resolve(found);
      };
      waiting.add(look);
      look();
    });
  return { seen, until };
}

function client(url, options = {}) {
  return io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options });
}

async function upload(name, half) {
  const put = beginPut(server.url, name, bytes.length);
  await put.more(bytes.subarray(0, bytes.length / 2));
  await half;
  await put.more(bytes.subarray(bytes.length / 2));
  const answer = await put.answer;
  assert.equal(answer.hash, digest);
  return answer;
}

function checkStory(seen, name) {
  const story = seen.filter((update) => update.filename === name);
  const [first, last] = [story[0], story.at(-1)];
  assert.equal(first.status, "uploading");
  assert.equal(first.progress, 0);
  assert.deepEqual(
    [last.status, last.progress, last.transferred_bytes, last.total_bytes, last.eta, last.checksum],
    ["completed", 100, bytes.length, bytes.length, 0, digest],
  );
  story.reduce((before, after) => {
    assert.ok(before.progress <= after.progress && before.transferred_bytes <= after.transferred_bytes);
    assert.ok(before.seq <= after.seq && before.id === after.id && after.direction === "upload");
    return after;
  });
  for (const { speed, eta } of story) assert.ok(Number.isInteger(speed) && (eta === null || Number.isInteger(eta)));
}

async function frontend(name, options) {
  const socket = client(server.url, options);
  const greeting = await new Promise((resolve) => socket.once("connected", resolve));
  assert.equal(typeof greeting.message, "string");
  const updates = collect(socket, "transfer_update");
  const stats = collect(socket, "stats_update");
  const snapshot = new Promise((resolve) => socket.once("status_update", resolve));
  socket.emit("subscribe_all");
  socket.emit("subscribe_stats");
  const { transfers, queue, metadata } = await snapshot;
  assert.ok(transfers && Array.isArray(queue) && metadata.version);
  const { completed_count: before } = await stats.until(() => true);
  await upload(name, updates.until((update) => update.filename === name && update.progress === 50));
  await updates.until((update) => update.filename === name && ended(update));
  checkStory(updates.seen, name);
  await stats.until((stats) => stats.completed_count === before + 1);
  socket.disconnect();
}

await run({
  "a frontend: polling, then WebSocket": () => frontend("both.bin", {}),
  "a frontend: WebSocket alone": () => frontend("ws.bin", { transports: ["websocket"] }),
  "a frontend: polling alone": () => frontend("polling.bin", { transports: ["polling"] }),

  "rooms: who watches a file hears of that one alone, until it unsubscribes": async () => {
    const socket = client(server.url);
    const updates = collect(socket, "status_update");
    const errors = collect(socket, "error");
    socket.emit("subscribe_status", { filename: "room.bin" });
    await errors.until((error) => error.message.includes("room.bin"));
    await upload("elsewhere.bin");
    await upload("room.bin", updates.until((update) => update.progress === 50));
    await updates.until(ended);
    checkStory(updates.seen, "room.bin");
    assert.ok(updates.seen.every((update) => update.filename === "room.bin"));
    const count = updates.seen.length;
    socket.emit("unsubscribe_status", { filename: "room.bin" });
    socket.emit("subscribe_status", { filename: "elsewhere.bin" });
    const whole = await updates.until((update) => update.filename === "elsewhere.bin");
    const status = await (await fetch(`${server.url}/status/elsewhere.bin`)).json();
    assert.deepEqual(whole, status);
    await upload("room.bin");
    await upload("elsewhere.bin");
    await updates.until((update) => update.seq > whole.seq && ended(update));
    assert.equal(updates.seen.slice(count).filter((update) => update.filename === "room.bin").length, 0);
    socket.disconnect();
  },

  "a connection that breaks in the middle: the client comes back and learns the end": async () => {
    const target = new URL(server.url);
    const pairs = new Set();
    let open = true;
    const proxy = net.createServer((near) => {
      if (!open) return near.destroy();
      const far = net.connect(target.port, target.hostname);
      pairs.add(near);
      for (const [from, to] of [[near, far], [far, near]]) {
        from.on("error", () => to.destroy()).on("close", () => to.destroy());
        from.pipe(to);
      }
    });
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
    const socket = client(`http://127.0.0.1:${proxy.address().port}`);
    socket.on("connect", () => socket.emit("subscribe_all"));
    const updates = collect(socket, "transfer_update");
    const snapshots = collect(socket, "status_update");
    await snapshots.until(() => true);
    const name = "broken.bin";
    await upload(
      name,
      updates.until((update) => update.filename === name && update.progress === 50).then(() => {
        open = false;
        for (const near of pairs) near.destroy();
        return new Promise((resolve) => socket.once("disconnect", resolve));
      }),
    );
    open = true;
    const { transfers } = await snapshots.until(({ transfers }) => transfers[name]?.status === "completed");
    assert.equal(transfers[name].checksum, digest);
    socket.disconnect();
    proxy.close();
  },

  "a failed upload is told of, with why": async () => {
    const socket = client(server.url);
    socket.emit("subscribe_all");
    const updates = collect(socket, "transfer_update");
    const put = beginPut(server.url, "failed.bin", bytes.length);
    put.answer.catch(() => {});
    await put.more(bytes.subarray(0, 1_000_000));
    await updates.until((update) => update.filename === "failed.bin" && update.transferred_bytes === 1_000_000);
    put.hangUp();
    const update = await updates.until((update) => update.filename === "failed.bin" && ended(update));
    assert.deepEqual([update.status, update.progress], ["failed", 25]);
    assert.match(update.error, /before/);
    socket.disconnect();
  },

  "odd messages are answered with errors; ten megabytes end a connection, not the server": async () => {
    const socket = client(server.url, { transports: ["websocket"] });
    const errors = collect(socket, "error");
    const odd = [[], [{}], [null], [7], ["a"], [{ filename: 7 }], [{ filename: "" }], [{ filename: { a: 1 } }], [Buffer.from("x")]];
    for (const data of odd) socket.emit("subscribe_status", ...data);
    socket.emit("no such event", 1, 2, 3);
    await errors.until(() => errors.seen.length === odd.length + 1);
    const gone = new Promise((resolve) => socket.once("disconnect", resolve));
    socket.emit("subscribe_status", { filename: "x".repeat(10 << 20) });
    await gone;
    await new Promise((resolve) => socket.once("connected", resolve));
    socket.disconnect();
  },

  "a plain WebSocket": async () => {
    const socket = new WebSocket(`${server.url.replace("http", "ws")}/ws`);
    const told = [];
    const waiting = new Set();
    socket.on("message", (text) => {
      told.push(JSON.parse(text));
      for (const look of waiting) look();
    });
    const until = (isSo) =>
      new Promise((resolve) => {
        const look = () => told.some(isSo) && resolve();
        waiting.add(look);
        look();
      });
    await until(({ event }) => event === "connected");
    socket.send(JSON.stringify({ event: "subscribe_all" }));
    await until(({ event }) => event === "status_update");
    await upload("plain.bin", until(({ event, data }) => event === "transfer_update" && data.progress === 50));
    await until(({ data }) => data.filename === "plain.bin" && ended(data));
    checkStory(told.filter(({ event }) => event === "transfer_update").map(({ data }) => data), "plain.bin");
    socket.close();
  },

  "the server stops at once, whoever watches": async () => {
    const sockets = [client(server.url), client(server.url, { transports: ["polling"] })];
    await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once("connected", resolve))));
    const gone = sockets.map((socket) => new Promise((resolve) => socket.once("disconnect", resolve)));
    const [, ...reasons] = await Promise.all([server.stop(), ...gone]);
    for (const reason of reasons) assert.notEqual(reason, "io server disconnect", "it would not come back");
    for (const socket of sockets) socket.disconnect();
  },
});
process.exit(0);
