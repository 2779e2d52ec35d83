#!/usr/bin/env python3
"""The flow of a Python client: python-socketio and requests. Usage: python_client.py SFT"""

import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

import requests
import socketio

SECONDS = 30


class Watcher:
    """Collects events; waits for one of which something is so."""

    def __init__(self, url, **options):
        self.seen, self.changed = [], threading.Condition()
        self.client = socketio.Client(reconnection_delay=0.05, reconnection_delay_max=0.2)
        for name in ("connected", "status_update", "transfer_update", "stats_update", "error"):
            self.client.on(name, lambda data, name=name: self.tell(name, data))
        self.client.connect(url, **options)
        self.until("connected", lambda data: data["message"])

    def tell(self, name, data):
        with self.changed:
            self.seen.append((name, data))
            self.changed.notify_all()

    def until(self, name, is_so):
        def found():
            return next((data for event, data in self.seen if event == name and is_so(data)), None)

        with self.changed:
            assert self.changed.wait_for(lambda: found() is not None, SECONDS), (name, self.seen)
            return found()


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory(prefix="sft-python-") as directory:
        command = [binary, "serve", "--port", "0", "--server-host", "127.0.0.1"]
        server = subprocess.Popen(command, cwd=directory, env={}, stderr=subprocess.PIPE, text=True)
        try:
            log = iter(server.stderr.readline, "")
            url = next(found[1] for line in log if (found := re.search(r"listening on (http://\S+)", line)))
            threading.Thread(target=server.stderr.read, daemon=True).start()
            for transports in (["polling", "websocket"], ["websocket"], ["polling"]):
                flow(url, transports)
                print("ok: python-socketio,", " then ".join(transports))
        finally:
            server.terminate()
            assert server.wait(SECONDS) == 0


def flow(url, transports):
    name = "-".join(transports) + ".bin"
    content = os.urandom(2_000_000)
    watcher = Watcher(url, transports=transports)
    watcher.client.emit("subscribe_all")
    assert watcher.until("status_update", lambda data: "transfers" in data)["queue"] == []
    watcher.client.emit("subscribe_status", {"filename": name})
    assert name in watcher.until("error", lambda data: True)["message"]
    watcher.client.emit("subscribe_stats")
    before = watcher.until("stats_update", lambda data: True)["completed_count"]

    def body():
        yield content[: len(content) // 2]
        watcher.until("transfer_update", lambda data: data["filename"] == name and data["transferred_bytes"])
        yield content[len(content) // 2 :]

    answer = requests.put(f"{url}/files/{name}", data=body(), timeout=SECONDS)
    assert answer.status_code == 201, answer.text
    for event in ("transfer_update", "status_update"):
        done = watcher.until(event, lambda data: data.get("filename") == name and data["status"] == "completed")
        assert done["checksum"] == hashlib.sha256(content).hexdigest() == answer.json()["hash"]
        assert (done["progress"], done["total_bytes"], done["transferred_bytes"]) == (100, len(content), len(content))
    story = [data for event, data in watcher.seen if event == "transfer_update" and data["filename"] == name]
    assert story[0]["status"] == "uploading" and story[0]["total_bytes"] is None, "no length was sent"
    assert [data["progress"] for data in story[:-1]] == [0] * (len(story) - 1)
    # A form, as `requests` sends it: its length is known.
    files = {"file": ("form.bin", content)}
    answer = requests.post(f"{url}/upload", files=files, data={"priority": "5"}, timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    watcher.until("transfer_update", lambda data: data["filename"] == "form.bin" and data["status"] == "completed")
    stats = watcher.until("stats_update", lambda data: data["completed_count"] == before + 2)
    assert stats == requests.get(f"{url}/stats", timeout=SECONDS).json()
    watcher.client.emit("subscribe_status", ["not", "a", "name"])
    watcher.until("error", lambda data: "filename" in data["message"])
    watcher.client.disconnect()


main()
