#!/usr/bin/env python3
"""Numbered chunks by `requests`, as old clients send them to /upload_chunk: interrupted, asked about, completed."""

import concurrent.futures
import os
import random
import socket
import urllib.parse

import lib
import requests
from lib import MIB, SECONDS, sha256

CHUNK = 1 * MIB
COUNT = 13
CONTENT_SIZE = (COUNT - 1) * CHUNK + 12345


class Upload:
    """A file in chunks, by nothing but what old clients know."""

    def __init__(self, args, name, content, encrypted):
        self.args, self.name, self.content, self.encrypted = args, name, content, encrypted
        self.session = requests.Session()

    def chunk(self, number):
        return self.content[number * CHUNK : (number + 1) * CHUNK]

    def request(self, number, chunk=None, **fields):
        chunk = self.chunk(number) if chunk is None else chunk
        data = {
            "filename": self.name,
            "chunk_number": number,
            "total_chunks": COUNT,
            "chunk_hash": sha256(chunk),
            "client_id": "an-old-client",
            "encryption": "true" if self.encrypted else "false",
            "priority": 3,
            **fields,
        }
        files = {"chunk": (f"{self.name}.part{number}", chunk)}
        return requests.Request("POST", f"{self.args.url}/upload_chunk", data=data, files=files)

    def post(self, number, chunk=None, **fields):
        return self.session.send(self.request(number, chunk, **fields).prepare(), timeout=SECONDS)

    def send(self, number):
        answer = self.post(number)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["success"] is True and told["status"] in ("uploading", "completed"), told
        return told

    def break_off(self, number):
        """Half of a request, and then the connection is gone."""
        request = self.request(number).prepare()
        head = ["POST /upload_chunk HTTP/1.1", f"Host: {urllib.parse.urlsplit(request.url).netloc}"]
        head += [f"{key}: {value}" for key, value in request.headers.items()]
        target = urllib.parse.urlsplit(self.args.url)
        connection = socket.create_connection((target.hostname, target.port))
        connection.sendall("\r\n".join([*head, "", ""]).encode() + request.body[: len(request.body) // 2])
        lib.reset(connection)

    def received(self):
        info = lib.resume_info(self.args, self.name)
        return info["received_chunks"], info["can_resume"]

    def check_completed(self, told):
        assert (told["chunks_received"], told["status"]) == (COUNT, "completed"), told
        expected = (self.name, sha256(self.content), len(self.content), self.encrypted, 3)
        assert tuple(told[key] for key in ("filename", "hash", "size", "encryption", "priority")) == expected, told
        assert ("nonce" in told and "tag" in told) == self.encrypted, told
        assert self.received() == ([], False), "nothing is left to resume"
        lib.check_arrived(self.args, self.name, self.content, self.encrypted)


def main():
    args = lib.arguments(__doc__)
    content = os.urandom(CONTENT_SIZE)

    def one_after_another(encrypted, name):
        upload = Upload(args, name, content, encrypted)
        assert upload.received() == ([], False)
        for number in range(COUNT):
            told = upload.send(number)
            assert told["chunks_received"] == number + 1, told
            assert (told["status"] == "completed") == (number == COUNT - 1), told
        upload.check_completed(told)

    def interrupted(encrypted, name):
        upload = Upload(args, name, content, encrypted)
        for number in range(5):
            upload.send(number)
        upload.break_off(5)
        later = Upload(args, name, content, encrypted)
        received, can_resume = later.received()
        assert (received, can_resume) == (list(range(5)), True), received
        info = lib.resume_info(args, name)
        assert info["received_bytes"] == 5 * CHUNK and info["total_chunks"] == COUNT, info
        rest = [number for number in range(COUNT) if number not in received]
        random.shuffle(rest)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(later.send, rest))
        completed = [told for told in answers if told["status"] == "completed"]
        assert len(completed) == 1, answers
        later.check_completed(completed[0])

    def last_first(encrypted, name):
        # How long chunks are is not known yet when the shorter last one comes.
        upload = Upload(args, name, content, encrypted)
        assert upload.send(COUNT - 1)["chunks_received"] == 1
        assert upload.received() == ([COUNT - 1], True)
        for number in reversed(range(COUNT - 1)):
            told = upload.send(number)
        upload.check_completed(told)

    def wrong(encrypted, name):
        upload = Upload(args, name, content, encrypted)
        upload.send(0)
        broken = upload.post(1, chunk_hash=sha256(b"something else"))
        assert (broken.status_code, broken.json()["code"]) == (400, "chunk_hash_mismatch"), broken.text
        assert upload.received() == ([0], True), "a broken chunk is not kept"
        assert upload.send(0)["chunks_received"] == 1, "a chunk that is sent again counts once"
        other = upload.post(0, chunk=os.urandom(CHUNK))
        assert (other.status_code, other.json()["code"]) == (409, "chunk_conflict"), other.text
        without = upload.post(2, chunk_hash=None)
        assert (without.status_code, without.json()["code"]) == (400, "missing_field"), without.text
        beyond = upload.post(COUNT, chunk=upload.chunk(0))
        assert (beyond.status_code, beyond.json()["code"]) == (400, "invalid_chunk"), beyond.text
        for number in range(1, COUNT):
            told = upload.send(number)
        upload.check_completed(told)

    def replaced(encrypted, name):
        # Readers have the file that was there until the new one is complete.
        before = os.urandom(MIB)
        form = {"files": {"file": (name, before)}, "data": {"encryption": str(encrypted).lower()}}
        assert requests.post(f"{args.url}/upload", timeout=SECONDS, **form).status_code == 200
        upload = Upload(args, name, content, encrypted)
        for number in range(COUNT - 1):
            upload.send(number)
        readers = requests.get(f"{args.url}/download/{lib.quote(name)}", timeout=SECONDS)
        assert readers.content == before, "an upload in progress is not to be seen"
        upload.check_completed(upload.send(COUNT - 1))

    steps = {
        "one after another": one_after_another,
        "broken off, the rest in any order by four threads": interrupted,
        "the last first": last_first,
        "wrong and repeated chunks": wrong,
        "a file that was there before": replaced,
    }
    lib.run(args, "chunks", steps)


if __name__ == "__main__":
    main()
