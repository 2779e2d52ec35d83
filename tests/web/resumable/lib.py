"""What the Python scripts share: their arguments, a way to break connections, a look at what arrived."""

import argparse
import faulthandler
import hashlib
import json
import pathlib
import socket
import struct
import threading
import time
import urllib.parse

import requests

MIB = 1 << 20
SECONDS = 30


def arguments(about):
    """URL [--reference DIR] [--only TEXT]. With a reference, the server is a tus server that keeps its files there."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("url")
    parser.add_argument("--reference", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--only", default="", metavar="TEXT", help="the steps with that in their titles")
    args = parser.parse_args()
    args.url = args.url.rstrip("/")
    return args


def run(args, who, steps):
    """Every step plain and sealed: it gets whether, and a name for its file. A failure ends the process."""
    for title, step in steps.items():
        for encrypted in (False, True):
            told = f"{who}: {title}{' (sealed)' if encrypted else ''}"
            if args.only in told:
                faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
                step(encrypted, f"{told}.bin".replace(":", ","))  # a colon would be cleaned away
                faulthandler.cancel_dump_traceback_later()
                print(f"ok: {told}", flush=True)


class Gate:
    """A way to the server that can be held and cut. Counted are bytes that clients send, heads of requests included."""

    def __init__(self, url):
        target = urllib.parse.urlsplit(url)
        self.target = (target.hostname, target.port)
        self.changed = threading.Condition()
        self.left, self.held, self.pairs = None, False, set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near = self.listener.accept()[0]
            far = socket.create_connection(self.target)
            with self.changed:
                self.pairs.add((near, far))
            for counted in (True, False):
                threading.Thread(target=self.pass_on, args=((near, far), counted), daemon=True).start()

    def pass_on(self, pair, counted):
        from_, to = pair if counted else reversed(pair)
        try:
            while piece := from_.recv(65536):
                to.sendall(piece[: self.grant(len(piece))] if counted else piece)
                with self.changed:
                    if counted and self.left == 0:
                        self.held = True
                        self.changed.notify_all()
                    while counted and self.left == 0:
                        self.changed.wait()
            to.shutdown(socket.SHUT_WR)
        except OSError:
            for end in pair:
                cut(end)

    def grant(self, wanted):
        with self.changed:
            if self.left is None:
                return wanted
            granted = min(self.left, wanted)
            self.left -= granted
            return granted

    def hold(self, count):
        """Lets so many more bytes through, then none."""
        with self.changed:
            self.left, self.held = count, False

    def wait(self):
        """Until they are through."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.held, SECONDS), "not so many bytes were sent"

    def open(self):
        """All connections there are are broken; new ones pass."""
        with self.changed:
            pairs, self.pairs, self.left = self.pairs, set(), None
            for pair in pairs:
                for end in pair:
                    cut(end)
            self.changed.notify_all()


def cut(connection):
    """Wakes who waits for it, and tells the other side by a reset: one that is writing must not wait for ever."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    reset(connection)


def reset(connection):
    """Closes it as a machine that has crashed does: without an orderly end."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # it is closed
    connection.close()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def quote(name):
    return urllib.parse.quote(name, safe="")


def resume_info(args, name):
    answer = requests.get(f"{args.url}/resume_info/{quote(name)}", timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    return answer.json()


def check_arrived(args, name, content, encrypted):
    """That what was sent is what is there, and sealed if that was asked for."""
    if args.reference:
        return check_stored(args.reference, name, content, encrypted)
    path = quote(name)
    answer = requests.get(f"{args.url}/download/{path}", timeout=SECONDS)
    assert answer.status_code == 200, answer.text[:500]
    assert answer.content == content, f"{name}: {len(answer.content)} bytes of {len(content)}, or others"
    status = requests.get(f"{args.url}/status/{path}", timeout=SECONDS).json()
    told = (status["status"], status["checksum"], status["encryption"])
    assert told == ("completed", sha256(content), encrypted), status
    raw = requests.get(f"{args.url}/download/{path}", params={"decrypt": "false"}, timeout=SECONDS).content
    assert (raw == content) != encrypted, "sealed at rest if that was asked for, and only then"


def check_stored(directory, name, content, encrypted):
    """The same in what a tus server wrote; @tus/server and rustus call things by different names."""
    for path in [*directory.rglob("*.json"), *directory.rglob("*.info")]:
        about = json.loads(path.read_text())
        if (about.get("metadata") or {}).get("filename") == name:
            stored = pathlib.Path(about.get("path") or directory / about["id"]).read_bytes()
            assert stored == content, f"{name}: {len(stored)} bytes of {len(content)}, or others"
            assert about["metadata"].get("encryption") == ("true" if encrypted else None)
            return
    raise AssertionError(f"nothing of the name {name} was stored")


def settled(args, name):
    """What is known of a broken upload, when no more bytes of it are under way."""
    deadline, before = time.monotonic() + SECONDS, None
    while time.monotonic() < deadline:
        info = resume_info(args, name)
        if info["can_resume"] and info["received_bytes"] == before:
            return info
        before = info.get("received_bytes")
        time.sleep(0.1)
    raise AssertionError(f"{name} cannot be resumed: {info}")
