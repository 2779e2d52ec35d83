// tus-js-client: broken off in every way it can be, and resumed.
// Usage: node tus_js_client.mjs URL [--reference DIR] [--only TEXT]
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { Upload } from "tus-js-client";
import { run } from "../server.mjs";
import { checkArrived, choose, offers, openGate, readArguments } from "./lib.mjs";

const MIB = 1 << 20;
const server = readArguments();
const gate = await openGate(server.url);
const work = await mkdtemp(join(tmpdir(), "sft-tus-"));
const content = randomBytes(16 * MIB + 1);
// Within the first of two parts too.
const MIDDLE = 6 * MIB;
const name = (what, encrypted) => `tus-js ${what}, Köln${encrypted ? " sealed" : ""}.bin`;

// One upload, and what was said on the wire. `settled` is its end.
function begin(what, encrypted, source, options) {
  const said = [];
  const metadata = { filename: name(what, encrypted), filetype: "application/octet-stream" };
  if (encrypted) metadata.encryption = "true";
  let upload;
  const settled = new Promise((resolve, reject) => {
    upload = new Upload(source, {
      endpoint: `${gate.url}/uploads/`,
      metadata,
      retryDelays: null,
      onAfterResponse: (request, response) => {
        said.push({
          method: request.getMethod(),
          url: request.getURL(),
          from: Number(request.getHeader("Upload-Offset")),
          offset: Number(response.getHeader("Upload-Offset")),
          status: response.getStatus(),
        });
      },
      onSuccess: resolve,
      onError: reject,
      ...options,
    });
  });
  return { upload, said, settled };
}

// That it asked where it was, that something was kept, and that it went on from there.
function checkResumed(said) {
  const at = said.findIndex(({ method, offset }) => method === "HEAD" && offset > 0);
  const { url, offset, status } = said[at] ?? {};
  const told = `no HEAD told an offset to go on from: ${JSON.stringify(said)}`;
  assert.ok([200, 204].includes(status) && offset <= MIDDLE, told);
  const next = said.slice(at + 1).find((one) => one.method === "PATCH" && one.url === url);
  assert.equal(next?.from, offset, "it goes on from there");
}

const aborted = (what, options = {}) => async (encrypted) => {
  const { upload, said, settled } = begin(what, encrypted, content, options);
  const middle = gate.hold(MIDDLE);
  upload.start();
  await Promise.race([middle, settled]);
  await upload.abort();
  await gate.open();
  upload.start();
  await settled;
  checkResumed(said);
  await checkArrived(server, name(what, encrypted), content, encrypted);
};

// A process of its own, killed in the middle; the next one finds its upload by what the first has written down.
async function killed(encrypted) {
  const what = "killed";
  const file = join(work, "killed.bin");
  await writeFile(file, content);
  const script = fileURLToPath(new URL("tus_js_process.mjs", import.meta.url));
  const urls = join(work, `urls-${encrypted}.json`);
  const about = [`${gate.url}/uploads/`, file, urls, name(what, encrypted), String(encrypted)];
  const start = () => spawn(process.execPath, [script, ...about], { stdio: ["ignore", "pipe", "inherit"] });
  const middle = gate.hold(MIDDLE);
  const first = start();
  const ended = once(first, "exit");
  await Promise.race([middle, ended.then(() => Promise.reject(new Error("it ended before it was killed")))]);
  first.kill("SIGKILL");
  await ended;
  await gate.open();
  const second = start();
  let told = "";
  second.stdout.on("data", (piece) => {
    told += piece;
  });
  const [status] = await once(second, "close");
  assert.equal(status, 0);
  const { from } = JSON.parse(told);
  assert.ok(from > 0 && from < content.length, `resumed from ${from}`);
  await checkArrived(server, name(what, encrypted), content, encrypted);
}

// The connection breaks, and the client comes back by itself.
const cut = (what, source, options = {}) => async (encrypted) => {
  const { upload, said, settled } = begin(what, encrypted, source(), { retryDelays: [0, 100, 1000, 3000], ...options });
  const middle = gate.hold(MIDDLE);
  upload.start();
  await Promise.race([middle, settled]);
  await gate.open();
  await settled;
  checkResumed(said);
  await checkArrived(server, name(what, encrypted), content, encrypted);
};

async function terminated() {
  const { upload, settled } = begin("terminated", false, content, {});
  const middle = gate.hold(MIDDLE);
  upload.start();
  await Promise.race([middle, settled]);
  const { url } = upload;
  const gone = upload.abort(true);
  await gate.open();
  await gone;
  const answer = await fetch(url, { method: "HEAD", headers: { "Tus-Resumable": "1.0.0" } });
  assert.ok([404, 410].includes(answer.status), `after its DELETE: ${answer.status}`);
}

async function empty(encrypted) {
  const { upload, settled } = begin("empty", encrypted, Buffer.alloc(0), {});
  upload.start();
  await settled;
  await checkArrived(server, name("empty", encrypted), Buffer.alloc(0), encrypted);
}

const pieces = 3 * MIB;
const steps = {
  "an upload is aborted in one long PATCH, and started again": aborted("one PATCH"),
  "an upload in pieces is aborted, and started again": aborted("pieces", { chunkSize: pieces }),
  "data goes with the creation; aborted, and started again": aborted("with creation", {
    uploadDataDuringCreation: true,
    chunkSize: pieces,
  }),
  "a client is killed; the next one goes on": killed,
  "a connection breaks in one long PATCH; the client goes on": cut("cut", () => content),
  "a stream whose length is told last; its connection breaks": cut("deferred", () => Readable.from(blocks()), {
    uploadLengthDeferred: true,
    chunkSize: pieces,
  }),
  "an empty file": empty,
};

if (await offers(server, "concatenation")) {
  steps["two parts at once, aborted, started again and joined"] = aborted("parallel", { parallelUploads: 2, chunkSize: MIB });
} else {
  console.log("left out: parallelUploads: this reference offers no concatenation");
}

function* blocks() {
  for (let at = 0; at < content.length; at += 65536) yield content.subarray(at, at + 65536);
}

await run(choose(server, "tus-js-client", steps, { "an upload is taken back": terminated }));
console.log("left out: tus-js-client's IETF drafts: they are interop versions 5 and 6, and the server's is 8");
gate.close();
await rm(work, { recursive: true });
process.exit(0);
