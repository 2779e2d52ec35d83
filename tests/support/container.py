"""An independent reading of docs/CONTAINER.md, with PyCryptodome's AES-EAX and HKDF. Shares no code with the server.

    container.py open KEY FILE                             the plaintext of a container, to stdout
    container.py seal KEY FILE [SEGMENT_SIZE CHUNK_SIZE]   a container of FILE, to stdout
    container.py vectors DIRECTORY                         writes the test vectors
"""

import json, os, struct, sys
from hashlib import sha256
from pathlib import Path
from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF

MAGIC = b"\x89SFTEAX\n"
HEADER = ">8sBBHI8s16sQ"  # magic, version, algorithm, zero, segment size, key id, file nonce, chunk size


def key_id(key):
    return HKDF(key, 8, b"", SHA256, context=b"smart-file-transfer key id v1")


def file_key(key, file_nonce):
    return HKDF(key, 16, file_nonce, SHA256, context=b"smart-file-transfer container v1 file key")


def segment_cipher(key, header, salt, number, last):
    cipher = AES.new(key, AES.MODE_EAX, nonce=salt + struct.pack(">Q", number << 8 | last), mac_len=16)
    return cipher.update(header)


def open_container(key, data):
    """The plaintext; ValueError where anything is not as it was sealed."""
    header = data[:48]
    magic, version, algorithm, zero, size, kid, nonce, chunk = struct.unpack(HEADER, header)
    if (magic, version, algorithm, zero) != (MAGIC, 1, 1, 0) or kid != key_id(key):
        raise ValueError("not a container of version 1 under this key")
    key, at, number, in_chunk, plaintext = file_key(key, nonce), 48, 0, 0, b""
    while at < len(data) or number == 0:
        whole = min(size, chunk - in_chunk) if chunk else size
        segment = data[at : at + 8 + whole + 16]
        at += len(segment)
        if len(segment) < (24 if number == 0 else 25):
            raise ValueError("cut off")
        cipher = segment_cipher(key, header, segment[:8], number, at == len(data))
        plaintext += cipher.decrypt_and_verify(segment[8:-16], segment[-16:])
        in_chunk = (in_chunk + whole) % chunk if chunk else 0
        number += 1
    return plaintext


def seal_container(key, plaintext, size=65536, chunk=0, nonce=None, salt=lambda number: os.urandom(8)):
    nonce = nonce or os.urandom(16)
    header = struct.pack(HEADER, MAGIC, 1, 1, 0, size, key_id(key), nonce, chunk)
    key, at, number, in_chunk, container = file_key(key, nonce), 0, 0, 0, header
    while at < len(plaintext) or number == 0:
        part = plaintext[at : at + (min(size, chunk - in_chunk) if chunk else size)]
        at += len(part)
        own_salt = salt(number)
        cipher = segment_cipher(key, header, own_salt, number, at == len(plaintext))
        container += own_salt + b"".join(cipher.encrypt_and_digest(part))
        in_chunk = (in_chunk + len(part)) % chunk if chunk else 0
        number += 1
    return container


def write_vectors(directory):
    key, nonce = b"DevKey1234567890", bytes(range(0xA0, 0xB0))
    salt = lambda number: struct.pack(">Q", 0x5A17 << 48 | number)
    vectors = []

    def add(name, length, size, chunk):
        plaintext = bytes((i * 7 + i // 256) % 256 for i in range(length))
        container = seal_container(key, plaintext, size, chunk, nonce, salt)
        assert open_container(key, container) == plaintext
        vector = {"name": name, "segment_size": size, "chunk_size": chunk, "plaintext_len": length,
                  "container_sha256": sha256(container).hexdigest()}
        if len(container) < 2000:
            vector["container"] = container.hex()
        vectors.append(vector)
        return container

    add("empty", 0, 64, 0)
    add("one_byte", 1, 64, 0)
    add("one_byte_less_than_a_segment", 63, 64, 0)
    add("one_segment", 64, 64, 0)
    add("one_byte_more_than_a_segment", 65, 64, 0)
    add("one_chunk_exactly", 100, 64, 100)
    whole = add("chunks_with_a_short_segment_each", 250, 64, 100)
    add("chunks_smaller_than_a_segment", 50, 64, 20)
    add("default_sizes_empty", 0, 65536, 0)
    add("default_sizes_a_batch_and_a_byte", 16 * 65536 + 1, 65536, 0)
    add("default_sizes_chunks_of_5_000_000", 5_000_001, 65536, 5_000_000)

    # Segments of `whole`: 64, 36, 64, 36 and 50 bytes, each with 24 more.
    at = [48, 136, 196, 284, 344, 418]
    part = [whole[a:b] for a, b in zip(at, at[1:])]
    other = seal_container(key, bytes(250), 64, 100, bytes(16), salt)
    flip = lambda i: whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :]
    refused = {
        "flipped_bit_in_the_key_id": flip(20), "flipped_bit_in_the_file_nonce": flip(30),
        "flipped_bit_in_the_chunk_size": flip(47), "flipped_bit_in_a_salt": flip(196),
        "flipped_bit_in_the_ciphertext": flip(210), "flipped_bit_in_a_tag": flip(283),
        "swapped_segments": whole[:48] + part[2] + part[1] + part[0] + part[3] + part[4],
        "repeated_segment": whole[:196] + part[0] + whole[284:],
        "dropped_chunk": whole[:48] + whole[196:],
        "added_segment": whole + part[4],
        "truncated_tail": whole[:-1],
        "truncated_at_a_segment": whole[:344],
        "truncated_to_the_header": whole[:48],
        "header_of_another_file": other[:48] + whole[48:],
        "last_segment_of_another_file": whole[:344] + other[344:],
    }
    for name, container in refused.items():
        try:
            open_container(key, container)
        except (ValueError, struct.error):
            continue
        sys.exit(name + " opens")
    document = {
        "about": "Test vectors of docs/CONTAINER.md, written by tests/support/container.py. Byte i of each plaintext is"
                 " (i * 7 + i / 256) % 256; the salt of segment n is 5a17 and n in 6 bytes.",
        "encryption_key": key.decode(), "key_id": key_id(key).hex(), "file_nonce": nonce.hex(),
        "file_key": file_key(key, nonce).hex(), "opens": vectors,
        "refused": [{"name": name, "container": data.hex()} for name, data in refused.items()],
    }
    Path(directory, "vectors.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    command, rest = sys.argv[1], sys.argv[2:]
    if command == "vectors":
        write_vectors(rest[0])
    else:
        run = {"open": open_container, "seal": seal_container}[command]
        sys.stdout.buffer.write(run(rest[0].encode(), Path(rest[1]).read_bytes(), *map(int, rest[2:])))
