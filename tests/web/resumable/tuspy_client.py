#!/usr/bin/env python3
"""tuspy: broken off in every way it can be, and resumed."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

import lib
from lib import MIB
from tusclient import client
from tusclient.storage.filestorage import FileStorage

SIZE, MIDDLE = 12 * MIB + 1, 5 * MIB


def metadata(name, encrypted):
    return {"filename": name, "encryption": "true"} if encrypted else {"filename": name}


def in_one_process(endpoint, path, urls, name, encrypted):
    """What the process does that is killed, and the one after it."""
    storage = FileStorage(urls)
    about = metadata(name, encrypted == "True")
    uploader = client.TusClient(endpoint).uploader(
        path, chunk_size=MIB, metadata=about, store_url=True, url_storage=storage
    )
    print(uploader.offset, flush=True)
    uploader.upload()


def main():
    args = lib.arguments(__doc__)
    gate = lib.Gate(args.url)
    tus = client.TusClient(f"{gate.url}/uploads/")
    directory = tempfile.TemporaryDirectory(prefix="sft-tuspy-")
    work = pathlib.Path(directory.name)
    content = os.urandom(SIZE)
    path = work / "sent.bin"
    path.write_bytes(content)

    def stopped(encrypted, name, **options):
        uploader = tus.uploader(str(path), chunk_size=MIB, metadata=metadata(name, encrypted), **options)
        uploader.upload(stop_at=MIDDLE)
        later = tus.uploader(str(path), url=uploader.url, chunk_size=3 * MIB, **options)
        assert later.offset == MIDDLE, later.offset
        later.upload()
        lib.check_arrived(args, name, content, encrypted)

    def checked(encrypted, name):
        stopped(encrypted, name, upload_checksum=True)

    def broken(encrypted, name):
        uploader = tus.uploader(str(path), metadata=metadata(name, encrypted), retries=3, retry_delay=1)
        offsets, ask = [], uploader.get_offset
        uploader.get_offset = lambda: offsets.append(ask()) or offsets[-1]
        gate.hold(MIDDLE)
        breaker = threading.Thread(target=lambda: (gate.wait(), gate.open()))
        breaker.start()
        uploader.upload()
        breaker.join()
        assert 0 < offsets[-1] < MIDDLE, offsets
        lib.check_arrived(args, name, content, encrypted)

    def killed(encrypted, name):
        urls = work / f"urls-{encrypted}.json"
        command = [sys.executable, __file__, "--process", f"{gate.url}/uploads/", path, urls, name, str(encrypted)]
        gate.hold(MIDDLE)
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            gate.wait()
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        gate.open()
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=lib.SECONDS).stdout
        assert 0 < int(told) < MIDDLE, told
        lib.check_arrived(args, name, content, encrypted)

    steps = {
        "stopped between pieces, another goes on": stopped,
        "pieces with checksums": checked,
        "the connection breaks in one long PATCH, it retries": broken,
        "killed, the next one goes on": killed,
    }
    with directory:
        lib.run(args, "tuspy", steps)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--process"]:
        in_one_process(*sys.argv[2:])
    else:
        main()
