#!/usr/bin/env python3
"""Resumable uploads: Smart File Transfer, rustus and @tus/server side by side, on loopback. See bench/README.md."""

import argparse
import base64
import contextlib
import hashlib
import http.client
import json
import mmap
import multiprocessing
import os
import platform
import queue
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from report import print_table, summarise
from servers import HOST, BenchError, start_rustus, start_sft, start_tus_server
from transfers import REPOSITORY, Case, Way, measure, tell_progress
from work import GIB, MIB, human, sha256, warm_memory, write_random

AT_ONCE = 4
SECONDS = 180
RUSTUS = "0.5.10"
CLIENTS = REPOSITORY / "tests/web/resumable"
PEAK_MIB = 48


@dataclass
class Sizes:
    file: int
    piece: int

    @property
    def warm(self):
        return self.file * 11 // 10

    @property
    def disk(self):
        """The source, an upload, the parts it is joined from, and what memory is warmed with."""
        return 3 * self.file + self.warm + 512 * MIB


FULL = Sizes(GIB, 8 * MIB)
QUICK = Sizes(64 * MIB, 2 * MIB)


class Connection:
    """One that is kept alive. Pieces of a file go by sendfile: the client must not be what is measured."""

    def __init__(self, server):
        self.server = server
        self.http = http.client.HTTPConnection(HOST, server.port, timeout=SECONDS)

    def send(self, method, path, headers, file=None, start=0, count=0, before=b"", after=b""):
        """A request whose body is `before`, a piece of the file, and `after`. Gives the answer, which is a success."""
        self.http.putrequest(method, path, skip_accept_encoding=True)
        self.http.putheader("Content-Length", str(len(before) + count + len(after)))
        for name, value in headers.items():
            self.http.putheader(name, value)
        try:
            self.http.endheaders(before or None)
            if count:
                self.http.sock.sendfile(file, start, count)
            if after:
                self.http.sock.sendall(after)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer says why
        try:
            answer = self.http.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            told = f"{method} {path}: {type(error).__name__}; {self.server.last_words()}"
            raise BenchError(f"{self.server.name}: {told}") from error
        if answer.status not in (200, 201, 204):
            told = f"{method} {path}: {answer.status} {body[:300]}; {self.server.last_words()}"
            raise BenchError(f"{self.server.name}: {told}")
        return answer, body

    def close(self):
        self.http.close()


class Tus:
    """Uploads by tus 1.0.0."""

    version = {"Tus-Resumable": "1.0.0"}

    def __init__(self, bench, server):
        self.bench, self.server = bench, server

    def create(self, connection, headers):
        answer, _ = connection.send("POST", "/uploads/", {**self.version, **headers})
        return urllib.parse.urlsplit(answer.getheader("Location")).path

    def patch(self, connection, path, file, start, end, piece):
        """What stands in the source from `start` to `end`, in pieces."""
        for at in range(start, end, piece):
            count = min(piece, end - at)
            about = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(at - start)}
            answer, _ = connection.send("PATCH", path, {**self.version, **about}, file, at, count)
            if answer.getheader("Upload-Offset") != str(at - start + count):
                raise BenchError(f"{self.server.name}: another offset than what was sent")

    def in_pieces(self, piece):
        size, name = self.bench.sizes.file, self.bench.new_name()
        with contextlib.closing(Connection(self.server)) as connection, open(self.bench.source, "rb") as file:
            begun = time.monotonic()
            path = self.create(connection, {"Upload-Length": str(size), "Upload-Metadata": f"filename {word(name)}"})
            self.patch(connection, path, file, 0, size, piece)
            seconds = time.monotonic() - begun
        self.bench.check(self.server, f"pieces of {piece}", name, path)
        return seconds, size

    def joined(self):
        """Parts at once, each in pieces on a connection of its own, and then made one."""
        size, name = self.bench.sizes.file, self.bench.new_name()
        part = size // AT_ONCE

        def send(number):
            with contextlib.closing(Connection(self.server)) as connection, open(self.bench.source, "rb") as file:
                path = self.create(connection, {"Upload-Length": str(part), "Upload-Concat": "partial"})
                start = number * part
                self.patch(connection, path, file, start, start + part, self.bench.sizes.piece)
                return path

        with ThreadPoolExecutor(AT_ONCE) as pool, contextlib.closing(Connection(self.server)) as connection:
            begun = time.monotonic()
            parts = list(pool.map(send, range(AT_ONCE)))
            concat = f"final;{' '.join(parts)}"
            path = self.create(connection, {"Upload-Concat": concat, "Upload-Metadata": f"filename {word(name)}"})
            seconds = time.monotonic() - begun
        self.bench.check(self.server, "joined", name, path)
        return seconds, size


def word(name):
    """A value of Upload-Metadata."""
    return base64.b64encode(name.encode()).decode()


class Chunks:
    """Numbered chunks by /upload_chunk, whose hashes the client knows beforehand."""

    BOUNDARY = "bench-boundary-7f3a"

    def __init__(self, bench, server):
        self.bench, self.server = bench, server

    def form(self, name, number):
        fields = {
            "filename": name,
            "chunk_number": number,
            "total_chunks": len(self.bench.chunk_digests),
            "chunk_hash": self.bench.chunk_digests[number],
            "file_size": self.bench.sizes.file,
            "file_hash": self.bench.digest,
            "chunk_size": self.bench.sizes.piece,
        }
        parts = [
            f'--{self.BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        ]
        kind = f'name="chunk"; filename="{name}.part"\r\nContent-Type: application/octet-stream'
        parts.append(f"--{self.BOUNDARY}\r\nContent-Disposition: form-data; {kind}\r\n\r\n")
        return "".join(parts).encode(), f"\r\n--{self.BOUNDARY}--\r\n".encode()

    def send(self, at_once):
        sizes, name = self.bench.sizes, self.bench.new_name()
        waiting = queue.SimpleQueue()
        for number in range(len(self.bench.chunk_digests)):
            waiting.put((number, *self.form(name, number)))
        completed = []
        headers = {"Content-Type": f"multipart/form-data; boundary={self.BOUNDARY}"}

        def work(_):
            with contextlib.closing(Connection(self.server)) as connection, open(self.bench.source, "rb") as file:
                while True:
                    try:
                        number, before, after = waiting.get_nowait()
                    except queue.Empty:
                        return
                    start = number * sizes.piece
                    count = min(sizes.piece, sizes.file - start)
                    _, body = connection.send("POST", "/upload_chunk", headers, file, start, count, before, after)
                    told = json.loads(body)
                    if told["status"] == "completed":
                        completed.append(told)

        with ThreadPoolExecutor(at_once) as pool:
            begun = time.monotonic()
            list(pool.map(work, range(at_once)))
            seconds = time.monotonic() - begun
        if not completed or any(told["hash"] != self.bench.digest for told in completed):
            raise BenchError(f"{self.server.name}: {name}: not completed, or another SHA-256: {completed}")
        self.bench.check(self.server, f"chunks, {at_once} at a time", name, None)
        return seconds, sizes.file


class Bench:
    """The running servers, the source, and a look at what they have stored. `stack` stops them."""

    def __init__(self, stack, directory, sizes, args):
        self.directory, self.sizes = directory, sizes
        self.uploads, self.looked_at, self.servers = 0, set(), {}
        starters = {
            "rustus": lambda: start_rustus(args.rustus, directory / "rustus"),
            "@tus/server": lambda: start_tus_server(args.node, CLIENTS / "reference.mjs", directory / "tus-server"),
            "sft": lambda: start_sft(args.binary, directory / "sft", "process"),
        }
        for name, starter in starters.items():
            if name not in args.leave_out:
                self.servers[name] = starter()
                stack.callback(self.servers[name].stop)

    def prepare(self):
        self.source = self.directory / "source"
        write_random(self.source, self.sizes.file)
        self.digest = sha256(self.source)
        self.chunk_digests = []
        with open(self.source, "rb") as file:
            while piece := file.read(self.sizes.piece):
                self.chunk_digests.append(hashlib.sha256(piece).hexdigest())

    def new_name(self):
        self.uploads += 1
        return f"up-{self.uploads}.bin"

    def check(self, server, way, name, path):
        """That it is stored whole: always by its length, at first by its content. Then it is deleted."""
        ours = server is self.servers.get("sft")
        stored = server.files / (name if ours else Path(path).name)
        if not stored.is_file() or stored.stat().st_size != self.sizes.file:
            raise BenchError(f"{server.name}: {name} was not stored with its {self.sizes.file} bytes")
        if (server.name, way) not in self.looked_at:
            self.looked_at.add((server.name, way))
            if sha256(stored) != self.digest:
                raise BenchError(f"{server.name}: {name} was stored with another content")
        stored.unlink()
        if not ours:  # what was joined, and notes
            for directory in (server.files, server.files.parent / "info"):
                for left in directory.glob("*"):
                    left.unlink()

    def warm_memory(self):
        warm_memory(self.directory, self.sizes.warm)


def hash_once(path, barrier, results):
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
        view = memoryview(content)
        barrier.wait()
        begun = time.monotonic()
        digest = hashlib.sha256()
        for at in range(0, len(view), MIB):
            digest.update(view[at : at + MIB])
        results.put(time.monotonic() - begun)
        view.release()


def hash_twice(path):
    """Two processes hash the source from memory at the same time. Bytes/s that get two hashes each."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.SimpleQueue()
    workers = [context.Process(target=hash_once, args=(path, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    seconds = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return path.stat().st_size / max(seconds)


def make_cases(bench, only):
    """What is measured, in this order. Ratios are to the first way of a case."""
    sizes = bench.sizes
    tus = {name: Tus(bench, server) for name, server in bench.servers.items()}
    sft = bench.servers.get("sft")
    chunks = sft and Chunks(bench, sft)
    pieces = [Way(name, by.server, partial(by.in_pieces, sizes.piece)) for name, by in tus.items()]
    whole = [Way(name, by.server, partial(by.in_pieces, sizes.file)) for name, by in tus.items()]
    # The file store of @tus/server does not join parts.
    joined = [Way(f"{name} joined", by.server, by.joined) for name, by in tus.items() if name != "@tus/server"]
    if chunks:
        pieces.append(Way("sft chunks", sft, partial(chunks.send, 1)))
        joined.append(Way("sft chunks", sft, partial(chunks.send, AT_ONCE)))
    total, piece = human(sizes.file), human(sizes.piece)
    cases = [
        Case("up-pieces", f"{total} in pieces of {piece}, one after another", pieces),
        Case("up-whole", f"{total} in one PATCH", whole),
        Case("up-at-once", f"{total} in pieces of {piece}, {AT_ONCE} at a time", joined),
    ]
    return [case for case in cases if case.ways and only in (None, case.key.removeprefix("up-"))]


def targets(rows, hashes):
    """What was to be reached: text, figure, whether it was. Nothing is asserted."""
    rates = {(row["case"], row["way"]): row["rate"] for row in rows}
    rivals = [rates[key] for key in (("up-whole", "rustus"), ("up-whole", "@tus/server")) if key in rates]
    pairs = [
        ("one PATCH: speed × the faster rival", ("up-whole", "sft"), max(rivals, default=None), 1.1),
        ("pieces by PATCH: speed × rustus", ("up-pieces", "sft"), rates.get(("up-pieces", "rustus")), 0.65),
        ("pieces by PATCH: speed × @tus/server", ("up-pieces", "sft"), rates.get(("up-pieces", "@tus/server")), 2),
        ("/upload_chunk, one after another: speed × two hashes", ("up-pieces", "sft chunks"), hashes, 0.75),
        ("/upload_chunk, 4 at a time: speed × two hashes", ("up-at-once", "sft chunks"), hashes, 0.75),
    ]
    results = []
    for what, ours, base, goal in pairs:
        if ours in rates and base:
            figure = rates[ours] / base
            results.append({"target": f"{what} >= {goal}", "figure": round(figure, 2), "met": figure >= goal})
    ours = [row for row in rows if row["way"].startswith("sft")]
    if ours:
        most = max(ours, key=lambda row: row["peak_mib"])
        target = f"peak memory in MiB, most of all ({most['case']}, {most['way']}) < {PEAK_MIB}"
        results.append({"target": target, "figure": round(most["peak_mib"], 1), "met": most["peak_mib"] < PEAK_MIB})
    return results


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("binary", nargs="?", default=REPOSITORY / "target/release/sft", type=Path)
    add("--rounds", type=int, help="the first is not counted (6, with --quick 2)")
    add("--quick", action="store_true", help="a small file: shows that it works, not how fast")
    add("--only", choices=["pieces", "whole", "at-once"])
    add("--leave-out", action="append", default=[], choices=["sft", "rustus", "@tus/server"], metavar="NAME")
    add("--json", type=Path, metavar="FILE", help="write every sample and the summary there")
    add("--dir", default=tempfile.gettempdir(), help="where files go: on a disk (%(default)s)")
    add("--rustus", type=Path, help="the rustus program (built into target/bench/ if there is none)")
    args = parser.parse_args()
    args.binary = args.binary.resolve()
    args.rounds = args.rounds or (2 if args.quick else 6)
    if args.rounds < 2:
        parser.error("--rounds takes a number from 2: the first round is not counted")
    return args


def check_machine(args, sizes):
    """What would spoil the run is told before it begins; what is missing is installed."""
    if "sft" not in args.leave_out and not args.binary.is_file():
        raise BenchError(f"there is no {args.binary}: cargo build --release, or name the binary")
    free = shutil.disk_usage(args.dir).free
    print(f"needs {sizes.disk / GIB:.1f} GiB of disk in {args.dir}, where {free / GIB:.1f} are free")
    if free < sizes.disk:
        raise BenchError(f"not enough room in {args.dir}: choose another directory with --dir")
    stat = subprocess.run(["stat", "-fc", "%T", args.dir], capture_output=True, text=True, timeout=10)
    if stat.stdout.strip() == "tmpfs":
        print(f"warning: {args.dir} is in memory: uploads mean nothing there; name a disk with --dir")
    if "@tus/server" not in args.leave_out:
        args.node = shutil.which("node")
        if not args.node:
            raise BenchError("node is needed, or --leave-out @tus/server")
        if not (CLIENTS / "node_modules").is_dir():
            install(["npm", "ci", "--prefix", CLIENTS, "--omit=optional", "--no-audit", "--no-fund"])
    if "rustus" not in args.leave_out:
        if not args.rustus:
            root = REPOSITORY / "target/bench"
            args.rustus = root / "bin/rustus"
            if not args.rustus.is_file():
                install(["cargo", "install", "rustus", "--version", RUSTUS, "--locked", "--root", root])
        args.rustus = args.rustus.resolve()
    return stat.stdout.strip()


def install(command):
    print("installing:", *command, flush=True)
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise BenchError(f"it can't be installed: {' '.join(map(str, command))}; leave it out with --leave-out")


def versions(args):
    told = {}
    if "sft" not in args.leave_out:
        told["sft"] = subprocess.run(
            [args.binary, "--version"], capture_output=True, text=True, timeout=10
        ).stdout.strip()
    if "rustus" not in args.leave_out:
        told["rustus"] = subprocess.run(
            [args.rustus, "--version"], capture_output=True, text=True, timeout=10
        ).stdout.split()[-1]
    if "@tus/server" not in args.leave_out:
        packages = CLIENTS / "node_modules/@tus"
        for name in ("server", "file-store"):
            told[f"@tus/{name}"] = json.loads((packages / name / "package.json").read_text())["version"]
    return told


def run(args):
    sizes = QUICK if args.quick else FULL
    kind = check_machine(args, sizes)
    with contextlib.ExitStack() as stack:
        directory = tempfile.TemporaryDirectory(prefix="sft-bench-", dir=args.dir)
        directory = Path(stack.enter_context(directory)).resolve()
        machine = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "kernel": platform.release(),
            "cores": os.cpu_count(),
            "file_system": kind,
            **versions(args),
            "rounds": args.rounds,
        }
        print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
        bench = Bench(stack, directory, sizes, args)
        bench.prepare()
        cases = make_cases(bench, args.only)
        samples, hashes = [], []
        for number in range(args.rounds):
            hashes.append(hash_twice(bench.source))
            for case in cases:
                for way in case.ways:
                    samples.append(measure(bench, case, way, number))
                tell_progress(case, number, args.rounds, samples[-len(case.ways) :])
    rows = summarise(cases, samples)
    counted = [rate / 1e6 for rate in hashes[1:]]
    allowed = statistics.median(counted)
    print(
        f"\nWhat two hashes of each byte on two cores allow here: {allowed:,.0f} MB/s ({min(counted):,.0f}–{max(counted):,.0f})\n"
        f"  two processes of Python's hashlib ({ssl.OPENSSL_VERSION}), each SHA-256 of {human(sizes.file)} from memory, at the same time"
    )
    results = targets(rows, allowed)
    print_table(cases, rows, results)
    if args.only in (None, "at-once"):
        print(f"{AT_ONCE} at a time: without @tus/server, whose file store does not join parts.")
    if args.quick:
        print("These sizes are too small to tell anything: --quick shows that the script works.")
    if args.json:
        data = {
            "machine": machine,
            "sizes": asdict(sizes),
            "hashes": hashes,
            "samples": [asdict(sample) for sample in samples],
            "summary": rows,
            "targets": results,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(data, indent=1) + "\n")


def main():
    # Told to stop, it leaves by way of its clean-up.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    args = arguments()
    try:
        run(args)
    except BenchError as error:
        sys.exit(f"resumable.py: {error}")
    except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
        sys.exit(f"resumable.py: {type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
