// The frontend in a real browser, from another origin. Usage: node browser.mjs SFT [SCREENSHOTS]
// Chromium: the one in CHROMIUM, or `chromium` on the path. With SEALED=true the file is sealed at rest.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import puppeteer from "puppeteer-core";
import { run, startServer } from "./server.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const shots = resolve(process.argv[3] ?? join(here, "../../target/screenshots"));
const encrypt = process.env.SEALED === "true";
await mkdir(shots, { recursive: true });
const work = await mkdtemp(join(tmpdir(), "sft-browser-"));

await build({
  entryPoints: [join(here, "frontend/app.jsx")],
  outfile: join(work, "app.js"),
  bundle: true,
  jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"' },
  logLevel: "error",
});
const page_ = await readFile(join(here, "frontend/index.html"));
const script = await readFile(join(work, "app.js"));
const site = http.createServer((request, response) => {
  const isScript = request.url.endsWith("app.js");
  response.writeHead(200, { "Content-Type": isScript ? "text/javascript" : "text/html; charset=utf-8" });
  response.end(isScript ? script : page_);
});
// The port that frontends are developed on, if it is free.
const listen = (port) => new Promise((resolve, reject) => {
  site.once("error", reject).listen(port, "localhost", () => resolve(site.address().port));
});
const port = await listen(3000).catch(() => listen(0));
const origin = `http://localhost:${port}`;

const server = await startServer(resolve(process.argv[2]), { MAX_FILE_SIZE: "64MiB" });
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  userDataDir: join(work, "profile"),
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
const page = await browser.newPage();
const complaints = [];
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
const text = (id) => page.$eval(`#${id}`, (element) => element.textContent);
const shot = (name) => page.screenshot({ path: join(shots, `${name}.png`) });
const status = (wanted) =>
  page.waitForFunction((wanted) => document.querySelector("#status")?.textContent === wanted, {}, wanted);

// Drops a file where a person would, by way of an input that the page does not have.
async function drop(path) {
  await page.evaluate(() => {
    const input = Object.assign(document.createElement("input"), { type: "file", id: "dropped", hidden: true });
    document.body.append(input);
  });
  const input = await page.$("#dropped");
  await input.uploadFile(path);
  await page.evaluate(() => {
    const input = document.querySelector("#dropped");
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(input.files[0]);
    input.remove();
    const target = document.querySelector(".drop");
    for (const type of ["dragenter", "dragover", "drop"]) {
      target.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
    }
  });
}

// So slow that the bar can be seen moving.
async function throttle(bytesPerSecond) {
  const session = await page.createCDPSession();
  await session.send("Network.enable");
  const throughput = bytesPerSecond ?? -1;
  await session.send("Network.emulateNetworkConditions", {
    offline: false, latency: 0, downloadThroughput: throughput, uploadThroughput: throughput,
  });
}

const content = randomBytes(12 << 20);
const file = join(work, "Grüße aus Köln.bin");
await writeFile(file, content);
const large = join(work, "large.bin");
await writeFile(large, Buffer.alloc(65 << 20));

await run({
  "the page greets over Socket.IO from another origin": async () => {
    await page.goto(`${origin}/?server=${encodeURIComponent(server.url)}`);
    await page.waitForFunction(() => document.querySelector("#greeting")?.textContent.length > 0);
    await shot("1-connected");
  },
  "a dragged file goes up, and its progress is seen": async () => {
    await drop(file);
    await page.waitForSelector("#chosen");
    await page.$eval("#priority", (input) => input.select());
    await page.type("#priority", "7");
    if (encrypt) await page.click("#encryption");
    await shot("2-chosen");
    await throttle(5 << 20);
    await page.click("#upload");
    await page.waitForFunction(() => {
      const progress = Number.parseInt(document.querySelector("#progress")?.textContent);
      return progress >= 30 && progress < 100 && document.querySelector("#eta").textContent !== "unknown";
    });
    assert.equal(await text("status"), "uploading");
    assert.match(await text("speed"), /^[1-9]\d*\.\d MiB\/s$/);
    await shot("3-uploading");
    await status("completed");
    await page.waitForSelector("#result");
    assert.equal(await text("progress"), "100 %");
    assert.equal(await text("hash"), createHash("sha256").update(content).digest("hex"));
    assert.deepEqual([await text("size"), await text("stored-priority")], [String(content.length), "7"]);
    assert.equal(await text("bytes"), "12.0 MiB of 12.0 MiB");
    assert.equal(await text("encrypted"), encrypt ? "yes" : "no");
    await shot("4-completed");
    await throttle();
    const name = encodeURIComponent("Grüße aus Köln.bin");
    const back = Buffer.from(await (await fetch(`${server.url}/download/${name}`)).arrayBuffer());
    assert.ok(back.equals(content));
    const told = await (await fetch(`${server.url}/status/${name}`)).json();
    assert.equal(told.encryption, encrypt);
    const stored = Buffer.from(await (await fetch(`${server.url}/download/${name}?decrypt=false`)).arrayBuffer());
    assert.equal(stored.equals(content), !encrypt);
  },
  "nothing was complained of": async () => assert.deepEqual(complaints, []),
  "a file that is too large is refused in words": async () => {
    await drop(large);
    await page.click("#upload");
    await page.waitForSelector("#error");
    assert.match(await text("error"), /larger than 67108864 bytes/);
    await shot("5-too-large");
  },
});
await browser.close();
await server.stop();
site.close();
await rm(work, { recursive: true });
console.log(`screenshots: ${shots}`);
process.exit(0);
