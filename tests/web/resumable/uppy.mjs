// Uppy's tus plugin in a browser, from another origin. Usage: node uppy.mjs URL [--reference DIR] [--only TEXT]
// Chromium: the one in CHROMIUM, or `chromium` on the path.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import puppeteer from "puppeteer-core";
import { run } from "../server.mjs";
import { checkArrived, choose, openGate, readArguments } from "./lib.mjs";

const MIB = 1 << 20;
const MIDDLE = 6 * MIB;
const server = readArguments();
const gate = await openGate(server.url);
const work = await mkdtemp(join(tmpdir(), "sft-uppy-"));
const content = randomBytes(16 * MIB + 1);
const file = join(work, "Grüße aus Köln.bin");
await writeFile(file, content);

await build({
  entryPoints: [fileURLToPath(new URL("uppy_page.mjs", import.meta.url))],
  outfile: join(work, "page.js"),
  bundle: true,
  logLevel: "error",
});
const script = await readFile(join(work, "page.js"));
const html = '<!doctype html><link rel="icon" href="data:,"><input type="file"><script src="page.js"></script>';
const site = http.createServer((request, response) => {
  const isScript = request.url.endsWith("page.js");
  response.writeHead(200, { "Content-Type": isScript ? "text/javascript" : "text/html; charset=utf-8" });
  response.end(isScript ? script : html);
});
site.listen(0, "localhost");
await once(site, "listening");

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  userDataDir: join(work, "profile"),
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
process.once("exit", () => browser.process()?.kill("SIGKILL"));
const page = await browser.newPage();
const thrown = [];
page.on("pageerror", (error) => thrown.push(String(error)));

// A fresh page that has chosen the file and sends it. Uppy sends a `name` of its own; a `filename` goes before it.
// By the name that was chosen it finds what it had begun, and what it had completed.
async function begin(filename, encrypted, { own = false, ...options } = {}) {
  await page.goto(`http://localhost:${site.address().port}/`);
  await (await page.$("input")).uploadFile(file);
  const meta = { ...(own || { filename }), ...(encrypted && { encryption: "true" }) };
  await page.evaluate((...all) => window.begin(...all), `${gate.url}/uploads/`, own ? filename : `chosen, ${filename}`, meta, options);
}

// Until the middle is sent. An upload that ends before that has failed.
const reach = (middle) =>
  Promise.race([
    middle,
    page.evaluate(() => window.end).then((end) => assert.fail(`it ended: ${JSON.stringify(end)}`)),
  ]);

async function finish(filename, encrypted) {
  assert.deepEqual(await page.evaluate(() => window.end), { successful: 1, errors: [] });
  const said = await page.evaluate(() => window.said);
  const at = said.findIndex(({ method, offset }) => method === "HEAD" && offset > 0);
  const told = `no HEAD told an offset to go on from: ${JSON.stringify(said)}`;
  assert.ok(at >= 0 && said[at].offset <= MIDDLE, told);
  const next = said.slice(at + 1).find(({ method }) => method === "PATCH");
  assert.equal(next?.from, said[at].offset, "it goes on from there");
  await checkArrived(server, filename, content, encrypted);
}

const steps = {
  "paused and resumed": async (encrypted, filename) => {
    const middle = gate.hold(MIDDLE);
    await begin(filename, encrypted, { own: true });
    await reach(middle);
    await page.evaluate(() => window.uppy.pauseAll());
    await gate.open();
    await page.evaluate(() => window.uppy.resumeAll());
    await finish(filename, encrypted);
  },
  "the connection breaks, Uppy comes back by itself": async (encrypted, filename) => {
    const middle = gate.hold(MIDDLE);
    await begin(filename, encrypted);
    await reach(middle);
    await gate.open();
    await finish(filename, encrypted);
  },
  "in pieces; the page is left and opened again": async (encrypted, filename) => {
    const middle = gate.hold(MIDDLE);
    await begin(filename, encrypted, { chunkSize: 2 * MIB });
    await reach(middle);
    await page.goto("about:blank");
    await gate.open();
    await begin(filename, encrypted, { chunkSize: 2 * MIB });
    await finish(filename, encrypted);
  },
};
await run(choose(server, "Uppy", steps, { "the page threw nothing": async () => assert.deepEqual(thrown, []) }));
await browser.close();
gate.close();
site.close();
await rm(work, { recursive: true });
process.exit(0);
