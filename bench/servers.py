"""The servers that are compared: started on loopback, metered from /proc, stopped by pid."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
START_SECONDS = 20
STOP_SECONDS = 15
TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Something that the person at the terminal is told in one line."""


@dataclass
class Server:
    """A running server: one process, or a master and its workers."""

    name: str
    process: subprocess.Popen
    port: int
    files: Path  # where what is PUT to /files/ lands
    log: Path
    tells_digest: bool  # whether the answer to an upload bears the SHA-256

    def url(self, path):
        return f"http://{HOST}:{self.port}{path}"

    def cpu_seconds(self):
        """User and system time of the process tree."""
        total = 0
        for pid in tree(self.process.pid):
            try:
                # The clock of another process, as clock_getcpuclockid(3) gives it: /proc counts in ticks of 10 ms.
                total += time.clock_gettime((~pid << 3) | 2)
            except OSError:
                continue
        return total

    def reset_peak(self):
        for pid in tree(self.process.pid):
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            except OSError as error:
                raise BenchError(f"{self.name}: cannot reset the peak memory: {error}") from error

    def peak_bytes(self):
        """VmHWM, summed over the process tree."""
        total = 0
        for pid in tree(self.process.pid):
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
        return total

    def last_words(self):
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return "nothing in its log"
        return lines[-1] if lines else "nothing in its log"

    def stop(self):
        """SIGTERM, then SIGKILL for it and its workers: what descends from what was started."""
        pids = tree(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()

    def wait_until_ready(self, path):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise BenchError(
                    f"{self.name} ended as soon as it was started: {self.last_words()}"
                )
            connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
            try:
                connection.request("GET", path)
                connection.getresponse().read()
                return
            except OSError:
                time.sleep(0.05)
            finally:
                connection.close()
        raise BenchError(
            f"{self.name} did not answer within {START_SECONDS} s: {self.last_words()}"
        )


def stat(pid):
    """The fields of /proc/PID/stat after the name, which may hold anything; None: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def tree(root):
    """A process and all that descend from it."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry))
    pids = [root]
    for pid in pids:
        pids.extend(children.get(pid, []))
    return pids


def free_port():
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return listener.getsockname()[1]


def launch(name, command, port, files, log, *, environment, ready, tells_digest):
    """Starts a server, with nothing of our own environment, and waits until it answers."""
    with open(log, "ab") as output:
        try:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            process = subprocess.Popen(command, cwd=log.parent, env=environment, **streams)
        except OSError as error:
            told = f"{name} cannot be started: {command[0]}: {error.strerror}"
            raise BenchError(told) from error
    server = Server(name, process, port, files, log, tells_digest)
    try:
        server.wait_until_ready(ready)
    except BaseException:
        server.stop()
        raise
    return server


def start_sft(binary, directory, durability):
    directory.mkdir()
    port, log, files = free_port(), directory / "output.log", directory / "storage"
    environment = {
        "SERVER_HOST": HOST,
        "PORT": str(port),
        "UPLOAD_DIR": str(files),
        "LOG_FILE": str(directory / "status.json"),
        "SERVER_LOG_FILE": str(log),
        "DURABILITY": durability,
        "MAX_FILE_SIZE": "2GiB",
    }
    extra = {"environment": environment, "ready": "/health", "tells_digest": True}
    return launch(f"sft {durability}", [binary, "serve"], port, files, log, **extra)


NGINX_CONFIG = """\
daemon off;
{user}
worker_processes auto;
pid {directory}/nginx.pid;
error_log {directory}/output.log;
events {{
    worker_connections 768;
}}
http {{
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    default_type application/octet-stream;
    access_log {directory}/access.log;
    client_max_body_size 2g;
    {buffer}
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {host}:{port};
        location /download/ {{
            alias {directory}/files/;
        }}
        location /files/ {{
            alias {directory}/files/;
            dav_methods PUT;
        }}
    }}
}}
"""


def find_nginx():
    """The path of an nginx that knows PUT."""
    search = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"
    nginx = shutil.which("nginx", path=search)
    if nginx is None:
        raise BenchError("nginx is needed (Debian: apt-get install nginx-light)")
    version = subprocess.run([nginx, "-V"], capture_output=True, text=True, timeout=10).stderr
    if "http_dav_module" not in version:
        raise BenchError(f"{nginx} was built without ngx_http_dav_module: it can't take a PUT")
    return nginx, version.splitlines()[0].rpartition("nginx/")[2]


def start_nginx(nginx, directory, body_buffer=None):
    directory.mkdir()
    port, log, files = free_port(), directory / "output.log", directory / "files"
    files.mkdir()
    text = NGINX_CONFIG.format(
        directory=directory,
        host=HOST,
        port=port,
        # As root, workers would become a user who may not write here.
        user="user root;" if os.geteuid() == 0 else "",
        buffer=f"client_body_buffer_size {body_buffer};" if body_buffer else "",
    )
    config = directory / "nginx.conf"
    config.write_text(text)
    command = [nginx, "-p", directory, "-e", log, "-c", config]
    extra = {"environment": {}, "ready": "/", "tells_digest": False}
    return launch(f"nginx {body_buffer or 'default'}", command, port, files, log, **extra)


def start_tus_server(node, script, directory):
    """@tus/server with its file store, by the script that the real clients are tried with."""
    directory.mkdir()
    port, log, files = free_port(), directory / "output.log", directory / "files"
    files.mkdir()
    extra = {"environment": {"NODE_ENV": "production"}, "ready": "/", "tells_digest": False}
    return launch("@tus/server", [node, script, files, str(port)], port, files, log, **extra)


def start_rustus(binary, directory):
    """rustus with its file store. It takes a request whole into memory: what it takes must be allowed."""
    directory.mkdir()
    port, log, files = free_port(), directory / "output.log", directory / "files"
    (directory / "info").mkdir()
    files.mkdir()
    command = [binary, "--host", HOST, "--port", str(port), "--url", "/uploads"]
    command += ["--data-dir", files, "--info-dir", directory / "info", "--max-body-size", str(2 << 30)]
    extra = {"environment": {}, "ready": "/", "tells_digest": False}
    return launch("rustus", command, port, files, log, **extra)
