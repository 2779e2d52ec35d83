#!/usr/bin/env python3
"""curl by hand: tus, the IETF draft, and a PUT that goes on with Content-Range. Killed in the middle, resumed."""

import base64
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile

import lib
import requests
from lib import MIB, SECONDS, sha256

SIZE, MIDDLE = 12 * MIB + 1, 5 * MIB
DRAFT = "Upload-Draft-Interop-Version: 8"
PROBLEM = "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"


class Answer:
    """The last answer that curl printed with -i; those before it are 100 and 104."""

    def __init__(self, text):
        parts = re.split(r"\r\n\r\n", text)
        heads = [part for part in parts if part.startswith("HTTP/1.1 ")]
        self.body = text.rpartition(heads[-1])[2].removeprefix("\r\n\r\n")
        lines = heads[-1].split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}

    def __getitem__(self, name):
        return self.headers.get(name.lower())

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body}"

    def json(self):
        return json.loads(self.body)


def command(*options):
    always = ["curl", "-q", "-sS", "-i", "--noproxy", "*", "--max-time", str(SECONDS)]
    return [*always, *map(str, options)]


def curl(*options, body=None):
    done = subprocess.run(command(*options), input=body, capture_output=True, timeout=2 * SECONDS)
    assert done.returncode == 0, (options, done.stderr)
    return Answer(done.stdout.decode())


def headers(*lines):
    return [option for line in lines for option in ("-H", line)]


def encode(name, encrypted):
    words = {"filename": name, **({"encryption": "true"} if encrypted else {})}
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in words.items())


def sealing(encrypted):
    return headers("X-Encryption: true") if encrypted else []


def main():
    args = lib.arguments(__doc__)
    gate = lib.Gate(args.url)
    directory = tempfile.TemporaryDirectory(prefix="sft-curl-")
    content = os.urandom(SIZE)
    path = pathlib.Path(directory.name) / "sent.bin"
    path.write_bytes(content)
    uploads = f"{args.url}/uploads/"

    def locate(answer, base):
        assert answer["location"], answer
        return requests.compat.urljoin(base, answer["location"])

    def killed(url, *options):
        """A curl that is killed in the middle of its body, by way of the gate."""
        gate.hold(MIDDLE)
        url = gate.url + url.removeprefix(args.url)
        client = subprocess.Popen(command("-T", path, *options, url), stdout=subprocess.DEVNULL)
        try:
            gate.wait()
        finally:
            client.send_signal(signal.SIGKILL)
            client.wait()
        gate.open()

    def tus(encrypted, name):
        version = "Tus-Resumable: 1.0.0"
        about = headers(version, f"Upload-Length: {SIZE}", f"Upload-Metadata: {encode(name, encrypted)}")
        created = curl("-X", "POST", *about, uploads)
        assert created.status == 201 and created["tus-resumable"] == "1.0.0", created
        url = locate(created, uploads)
        piece = headers(version, "Content-Type: application/offset+octet-stream")
        killed(url, "-X", "PATCH", *piece, *headers("Upload-Offset: 0"))
        head = curl("--head", *headers(version), url)
        offset = int(head["upload-offset"])
        assert head.status in (200, 204) and 0 < offset < MIDDLE and head["upload-length"] == str(SIZE), head
        assert head["cache-control"] == "no-store", head
        wrong = curl("-X", "PATCH", *piece, *headers(f"Upload-Offset: {offset + 1}"), "--data-binary", "x", url)
        assert wrong.status == 409, wrong
        kind = curl(
            "-X", "PATCH", *headers(version, f"Upload-Offset: {offset}", "Content-Type: text/plain"), "-d", "x", url
        )
        assert args.reference or kind.status == 415, kind
        # A length that is told, and one that is not.
        rest = ("--data-binary", "@-") if encrypted else ("-T", "-")
        done = curl("-X", "PATCH", *piece, *headers(f"Upload-Offset: {offset}"), *rest, url, body=content[offset:])
        assert (done.status, done["upload-offset"]) == (204, str(SIZE)), done
        lib.check_arrived(args, name, content, encrypted)

    def check_done(answer, name, encrypted):
        assert answer.status in (200, 201), answer
        told = answer.json()
        expected = (True, name, sha256(content), SIZE, encrypted)
        assert tuple(told[key] for key in ("success", "filename", "hash", "size", "encryption")) == expected, told
        lib.check_arrived(args, name, content, encrypted)

    def draft_head(url):
        head = curl("--head", *headers(DRAFT), url)
        assert (head.status, head["upload-complete"], head["cache-control"]) == (204, "?0", "no-store"), head
        return int(head["upload-offset"]), head

    def draft_append(url, offset, body, complete):
        about = headers(
            DRAFT,
            "Content-Type: application/partial-upload",
            f"Upload-Offset: {offset}",
            f"Upload-Complete: {complete}",
        )
        return curl("-X", "PATCH", *about, "--data-binary", "@-", url, body=body)

    def draft(encrypted, name):
        kind = "Content-Type: application/octet-stream"
        about = headers(DRAFT, "Upload-Complete: ?0", f"Upload-Length: {SIZE}", kind) + sealing(encrypted)
        created = curl("-X", "POST", *about, "--data-binary", "", f"{uploads}?filename={lib.quote(name)}")
        assert (created.status, created["upload-complete"]) == (201, "?0"), created
        assert created["upload-limit"], created
        url = locate(created, uploads)
        partial = headers(DRAFT, "Content-Type: application/partial-upload", "Upload-Offset: 0", "Upload-Complete: ?1")
        killed(url, "-X", "PATCH", *partial)
        offset, head = draft_head(url)
        assert 0 < offset < MIDDLE and head["upload-length"] == str(SIZE), head
        wrong = draft_append(url, offset + 1, b"x", "?0")
        assert (wrong.status, wrong["upload-offset"], wrong["upload-complete"]) == (409, str(offset), "?0"), wrong
        problem = wrong.json()
        told = (problem["type"], problem["expected-offset"], problem["provided-offset"])
        assert told == (PROBLEM, offset, offset + 1), problem
        piece = draft_append(url, offset, content[offset : offset + MIB], "?0")
        assert 200 <= piece.status < 300 and piece["upload-complete"] == "?0", piece
        assert draft_head(url)[0] == offset + MIB
        done = draft_append(url, offset + MIB, content[offset + MIB :], "?1")
        assert done["upload-complete"] == "?1", done
        check_done(done, name, encrypted)

    def draft_put(encrypted, name):
        target = f"{args.url}/files/{lib.quote(name)}"
        about = [*headers(DRAFT, "Upload-Complete: ?0", f"Upload-Length: {SIZE}"), *sealing(encrypted)]
        created = curl("-X", "PUT", *about, "--data-binary", "@-", target, body=content[:MIDDLE])
        assert (created.status, created["upload-complete"]) == (201, "?0"), created
        url = locate(created, target)
        assert requests.get(target, timeout=SECONDS).status_code == 404, "half a file is not to be seen"
        assert draft_head(url)[0] == MIDDLE
        done = draft_append(url, MIDDLE, content[MIDDLE:], "?1")
        assert done["upload-complete"] == "?1", done
        check_done(done, name, encrypted)

    def draft_whole(encrypted, name):
        # All in one request, as a client that would have resumed does when nothing breaks.
        target = f"{args.url}/files/{lib.quote(name)}"
        done = curl("-T", path, *headers(DRAFT, "Upload-Complete: ?1"), *sealing(encrypted), target)
        assert done["upload-complete"] == "?1", done
        check_done(done, name, encrypted)

    def draft_taken_back(encrypted, name):
        about = [*headers(DRAFT, "Upload-Complete: ?0"), *sealing(encrypted)]
        target = f"{args.url}/files/{lib.quote(name)}"
        url = locate(curl("-X", "PUT", *about, "--data-binary", "@-", target, body=content[:MIB]), target)
        assert curl("-X", "DELETE", *headers(DRAFT), url).status == 204
        assert curl("--head", *headers(DRAFT), url).status in (404, 410)
        assert requests.get(target, timeout=SECONDS).status_code == 404

    def put_continued(encrypted, name):
        target = f"{args.url}/files/{lib.quote(name)}"
        killed(target, *sealing(encrypted))
        info = lib.settled(args, name)
        offset = info["received_bytes"]
        assert 0 < offset < MIDDLE, info
        assert requests.get(target, timeout=SECONDS).status_code == 404, "half a file is not to be seen"
        done = curl("-C", offset, "-T", path, *sealing(encrypted), target)
        check_done(done, name, encrypted)

    def contended(encrypted, name):
        """A client whose connection hangs: the next one need not wait for its end."""
        version = "Tus-Resumable: 1.0.0"
        about = headers(version, f"Upload-Length: {SIZE}", f"Upload-Metadata: {encode(name, encrypted)}")
        url = locate(curl("-X", "POST", *about, uploads), uploads)
        piece = headers(version, "Content-Type: application/offset+octet-stream")
        gate.hold(MIDDLE)
        through = gate.url + url.removeprefix(args.url)
        hanging = subprocess.Popen(
            command("-T", path, "-X", "PATCH", *piece, *headers("Upload-Offset: 0"), through),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            gate.wait()
            offset = int(curl("--head", *headers(version), "--max-time", 5, url)["upload-offset"])
            rest = headers(f"Upload-Offset: {offset}")
            done = curl(
                "-X", "PATCH", *piece, *rest, "--data-binary", "@-", "--max-time", 10, url, body=content[offset:]
            )
            assert (done.status, done["upload-offset"]) == (204, str(SIZE)), done
        finally:
            hanging.kill()
            hanging.wait()
            gate.open()
        lib.check_arrived(args, name, content, encrypted)

    steps = {"tus, killed": tus, "tus, the connection hangs, another goes on": contended}
    if not args.reference:
        steps |= {
            "IETF draft, killed": draft,
            "IETF draft, half a file by PUT": draft_put,
            "IETF draft, a whole file by PUT": draft_whole,
            "IETF draft, taken back": draft_taken_back,
            "a PUT is killed, and goes on with Content-Range": put_continued,
        }
    with directory:
        lib.run(args, "curl", steps)


if __name__ == "__main__":
    main()
