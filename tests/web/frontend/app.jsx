// A frontend as its authors write one: React, axios, socket.io-client. Made for the test.
import axios from "axios";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { io } from "socket.io-client";

const SERVER_URL = window.SERVER_URL;
// Connected once somebody listens: what comes before would be lost.
const socket = io(SERVER_URL, { autoConnect: false });

const size = (bytes) => (bytes === null ? "unknown" : `${(bytes / 1048576).toFixed(1)} MiB`);

function App() {
  const [file, setFile] = useState(null);
  const [encryption, setEncryption] = useState(false);
  const [priority, setPriority] = useState(0);
  const [over, setOver] = useState(false);
  const [greeting, setGreeting] = useState("");
  const [sent, setSent] = useState(null);
  const [transfer, setTransfer] = useState(null);
  const [highest, setHighest] = useState(0);
  const [result, setResult] = useState(null);
  const [error, setError] = useState("");

  useEffect(() => {
    const follow = (update) => {
      if (update.direction !== "upload") return;
      setTransfer(update);
      setHighest((highest) => Math.max(highest, update.progress));
    };
    socket.on("connected", ({ message }) => setGreeting(message));
    socket.on("connect", () => socket.emit("subscribe_all"));
    socket.on("transfer_update", follow);
    socket.connect();
    return () => {
      socket.off();
      socket.disconnect();
    };
  }, []);

  async function upload() {
    setError("");
    setResult(null);
    // The file first, then the options.
    const form = new FormData();
    form.append("file", file);
    form.append("encryption", String(encryption));
    form.append("priority", String(priority));
    try {
      const { data } = await axios.post(`${SERVER_URL}/upload`, form, {
        onUploadProgress: ({ loaded, total }) => setSent(Math.round((100 * loaded) / total)),
      });
      setResult(data);
    } catch (failure) {
      setError(failure.response?.data?.message ?? failure.message);
    }
  }

  return (
    <main>
      <h1>Upload</h1>
      <p id="greeting">{greeting}</p>
      <div
        className={over ? "drop over" : "drop"}
        onDragOver={(event) => (event.preventDefault(), setOver(true))}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          event.preventDefault();
          setOver(false);
          setFile(event.dataTransfer.files[0]);
        }}
      >
        {file ? <b id="chosen">{file.name}, {size(file.size)}</b> : "Drag a file here"}
      </div>
      <p>
        <label><input id="encryption" type="checkbox" checked={encryption} onChange={(e) => setEncryption(e.target.checked)} /> encrypt</label>{" "}
        <label>priority <input id="priority" type="number" min="0" max="10" value={priority} onChange={(e) => setPriority(e.target.value)} /></label>{" "}
        <button id="upload" disabled={!file} onClick={upload}>Upload</button>
      </p>
      {transfer && (
        <section>
          <progress max="100" value={transfer.progress} />
          <dl>
            <dt>status</dt><dd id="status" className={transfer.status}>{transfer.status}</dd>
            <dt>progress</dt><dd id="progress" data-highest={highest}>{transfer.progress} %</dd>
            <dt>sent by browser</dt><dd>{sent} %</dd>
            <dt>speed</dt><dd id="speed">{size(transfer.speed)}/s</dd>
            <dt>time left</dt><dd id="eta">{transfer.eta === null ? "unknown" : `${transfer.eta} s`}</dd>
            <dt>bytes</dt><dd id="bytes">{size(transfer.transferred_bytes)} of {size(transfer.total_bytes)}</dd>
          </dl>
        </section>
      )}
      {result && (
        <dl id="result">
          <dt>stored as</dt><dd>{result.filename}</dd>
          <dt>SHA-256</dt><dd id="hash">{result.hash}</dd>
          <dt>size</dt><dd id="size">{result.size}</dd>
          <dt>encrypted</dt><dd id="encrypted">{result.encryption ? "yes" : "no"}</dd>
          <dt>priority</dt><dd id="stored-priority">{result.priority}</dd>
        </dl>
      )}
      {error && <p id="error" className="failed">{error}</p>}
    </main>
  );
}

createRoot(document.getElementById("root")).render(<App />);
