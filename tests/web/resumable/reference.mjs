// @tus/server with its file store, for working on these scripts and for the benchmark.
// Usage: node reference.mjs DIR [PORT]. Says where it listens; ends with SIGTERM.
import { FileStore } from "@tus/file-store";
import { Server } from "@tus/server";

const [directory, port = "0"] = process.argv.slice(2);
const server = new Server({ path: "/uploads", datastore: new FileStore({ directory }) });
const listener = server.listen({ host: "127.0.0.1", port: Number(port) }, () => {
  console.log(`listening on http://127.0.0.1:${listener.address().port}`);
});
process.once("SIGTERM", () => process.exit(0));
