"""What is done with the servers: transfers by curl, small requests by wrk, all checked."""

import hashlib
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from subprocess import PIPE

from servers import BenchError, find_nginx, start_nginx, start_sft

MIB, GIB = 1 << 20, 1 << 30
SMALL = 4096
PARALLEL = 8
CLIENT_SECONDS = 180
# A virtual machine gives freed memory back to its host two seconds later (Linux, mm/page_reporting.c): an upload
# that is measured meanwhile takes up to twice as long.
GIVING_BACK_SECONDS = 2.5


@dataclass
class Sizes:
    big: int
    mid: int
    wrk_seconds: int

    @property
    def warm(self):
        """Written and deleted before each timed upload, so that the machine has the pages."""
        return max(self.big, PARALLEL * self.mid) * 11 // 10

    @property
    def disk(self):
        """Sources, what is downloaded, and what one upload takes, with some to spare."""
        return 2 * self.big + (1 + PARALLEL) * self.mid + self.warm + 512 * MIB


FULL = Sizes(GIB, 100 * MIB, 3)
QUICK = Sizes(64 * MIB, 8 * MIB, 1)


def human(size):
    return f"{size / GIB:g} GiB" if size >= GIB else f"{size / MIB:g} MiB"


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_random(path, size):
    with open(path, "wb") as file:
        for start in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))


def warm_memory(directory, size):
    """Then nothing waits for the disk, and the pages that an upload takes are there."""
    subprocess.run(["sync", "-f", str(directory)], check=True, timeout=CLIENT_SECONDS)
    time.sleep(GIVING_BACK_SECONDS)
    path, block = directory / "warm", bytes(MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(block)
    path.unlink()


def curl(server, url, *options):
    """A curl that fails where the answer is an error, and ends with a line of figures."""
    always = "curl -q -sS --fail-with-body --noproxy * --max-time".split()
    last = ["-w", "\n%{size_download} %{time_total}", server.url(url)]
    return [*always, str(CLIENT_SECONDS - 10), *options, *last]


def run_clients(server, commands):
    """Runs them at once. Gives the seconds and, of each, the answer and the size."""
    begun = time.monotonic()
    clients = []
    try:
        for command in commands:
            clients.append(subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True))
        deadline = begun + CLIENT_SECONDS
        left = [max(1, deadline - time.monotonic()) for _ in clients]
        outputs = [client.communicate(timeout=most) for client, most in zip(clients, left)]
        seconds = time.monotonic() - begun
    except subprocess.TimeoutExpired as error:
        told = f"{server.name}: no end within {CLIENT_SECONDS} s: {' '.join(error.cmd)}"
        raise BenchError(told) from error
    finally:
        for client in clients:
            if client.poll() is None:
                client.kill()
                client.communicate()
    answers = []
    for client, (out, complaint) in zip(clients, outputs):
        if client.returncode:
            told = f"{complaint.strip()} {out.strip()}; {server.last_words()}"
            raise BenchError(f"{server.name}: curl ended with {client.returncode}: {told}")
        answer, _, figures = out.rpartition("\n")
        size, own_seconds = figures.split()
        answers.append((answer, int(size)))
    # One client's own clock leaves out the start of its process.
    return (float(own_seconds) if len(clients) == 1 else seconds), answers


class Bench:
    """The running servers, and what is done with them. `stack` stops them."""

    def __init__(self, stack, directory, sizes, binary, wrk):
        self.stack, self.directory, self.sizes, self.wrk = stack, directory, sizes, wrk
        nginx, self.nginx_version = find_nginx()
        self.nginx = self.start(start_nginx, nginx, directory / "nginx")
        self.nginx_1m = self.start(start_nginx, nginx, directory / "nginx-1m", "1m")
        self.process = self.start(start_sft, binary, directory / "sft-process", "process")
        self.power = self.start(start_sft, binary, directory / "sft-power", "power")
        self.digests = {}
        self.looked_at = set()
        self.uploads = 0

    def start(self, starter, *arguments):
        server = starter(*arguments)
        self.stack.callback(server.stop)
        return server

    def prepare(self):
        """Makes the sources, uploads what is downloaded, links it for nginx: the same pages."""
        for name, size in [("big", self.sizes.big), ("mid", self.sizes.mid), ("small", SMALL)]:
            write_random(self.directory / name, size)
            self.digests[name] = sha256(self.directory / name)
        copies = [("big", "big.bin"), ("small", "small.bin")]
        for source, name in copies + [("mid", f"mid-{i}.bin") for i in range(PARALLEL)]:
            put = curl(self.process, f"/files/{name}", "-T", str(self.directory / source))
            run_clients(self.process, [put])
            os.link(self.process.files / name, self.nginx.files / name)
        put = curl(self.process, "/files/sealed.bin?encryption=true", "-T", str(self.directory / "big"))
        run_clients(self.process, [put])
        self.check_download(self.process, "big", "sealed.bin")
        for server in (self.nginx, self.process):
            for source, name in [*copies, ("mid", "mid-0.bin")]:
                self.check_download(server, source, name)

    def check_download(self, server, source, name):
        copy = self.directory / "downloaded"
        run_clients(server, [curl(server, f"/download/{name}", "-o", str(copy))])
        if sha256(copy) != self.digests[source]:
            raise BenchError(f"{server.name}: the download of {name} is not what was uploaded")
        copy.unlink()

    def download(self, server, names, size):
        commands = [curl(server, f"/download/{name}", "-o", os.devnull) for name in names]
        seconds, answers = run_clients(server, commands)
        if any(length != size for _, length in answers):
            raise BenchError(f"{server.name}: a download has not its {size} bytes")
        return seconds, size * len(names)

    def put(self, server, source, count):
        """Uploads a source so many times at once. New names: to replace a file is other work."""
        names = self.new_names(count)
        path = self.directory / source
        commands = [curl(server, f"/files/{name}", "-T", str(path)) for name in names]
        return self.upload(server, source, names, commands)

    def put_sealed(self, server, source, count):
        """The same, encrypted at rest."""
        names = self.new_names(count)
        path = self.directory / source
        urls = [f"/files/{name}?encryption=true" for name in names]
        return self.upload(server, source, names, [curl(server, url, "-T", str(path)) for url in urls])

    def post(self, server, source, count):
        """The same by a form."""
        names = self.new_names(count)
        form = f"file=@{self.directory / source};filename="
        commands = [curl(server, "/upload", "-F", form + name) for name in names]
        return self.upload(server, source, names, commands)

    def new_names(self, count):
        self.uploads += 1
        return [f"up-{self.uploads}-{i}.bin" for i in range(count)]

    def upload(self, server, source, names, commands):
        """Looks at every answer, and the first time at the content; deletes what was stored."""
        seconds, answers = run_clients(server, commands)
        size, digest = (self.directory / source).stat().st_size, self.digests[source]
        for name, (answer, _) in zip(names, answers):
            sealed = any("encryption=true" in part for part in commands[0])
            stored = server.files / (f".sft/encrypted/{name}" if sealed else name)
            if not stored.is_file() or (stored.stat().st_size != size) != sealed:
                raise BenchError(f"{server.name}: {name} was not stored with its {size} bytes")
            if server.tells_digest and json.loads(answer).get("hash") != digest:
                raise BenchError(f"{server.name}: {name}: another SHA-256 in the answer: {answer}")
            way = (server.name, source, "-T" in commands[0], sealed)
            if way not in self.looked_at:
                self.looked_at.add(way)
                if sealed:
                    self.check_download(server, source, name)
                elif sha256(stored) != digest:
                    raise BenchError(f"{server.name}: {name} was stored with another content")
            stored.unlink()
        return seconds, size * len(names)

    def warm_memory(self):
        warm_memory(self.directory, self.sizes.warm)

    def small_requests(self, server):
        seconds = self.sizes.wrk_seconds
        command = [self.wrk, "-t1", "-c16", f"-d{seconds}s", server.url("/download/small.bin")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
        done = re.search(r"(\d+) requests in ([\d.]+)s, ([\d.]+)([KMG])B read", result.stdout)
        wrong = [line for line in ("Non-2xx", "Socket errors") if line in result.stdout]
        if result.returncode or wrong or not done:
            raise BenchError(f"{server.name}: wrk: {result.stdout} {result.stderr}")
        read = float(done[3]) * 1024 ** " KMG".index(done[4])
        if read < int(done[1]) * SMALL * 0.99:
            raise BenchError(f"{server.name}: answers were short: {done[0]}")
        return float(done[2]), int(done[1])
