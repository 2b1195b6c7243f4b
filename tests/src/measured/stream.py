"""Takes the images that `criu dump --stream` hands out into one stream on standard output: `stream.py DIR`.

What criu-image-streamer does, with memory moved from pipe to pipe by the kernel and small images at the end. Of one process.
"""

import os
import selectors
import socket
import sys

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1] + "/streamer-capture.sock")
listener.listen()
criu, _ = listener.accept()
small, waiting = {}, selectors.DefaultSelector()
PAGES = object()
waiting.register(criu, selectors.EVENT_READ)


def whole(count):
    data = b""
    while len(data) < count:
        part = criu.recv(count - len(data))
        if not part:
            return None
        data += part
    return data


def head(name, size):
    sys.stdout.buffer.write(f"{name} {size}\n".encode())
    sys.stdout.buffer.flush()


while waiting.get_map():
    for key, _ in waiting.select():
        if key.data is PAGES:
            # In turn with the others: of much memory the page map is more than a pipe holds, and CRIU waits for its reader.
            if not os.splice(key.fd, 1, 1 << 20):
                waiting.unregister(key.fileobj)
                os.close(key.fd)
            continue
        if key.fileobj is not criu:
            data = os.read(key.fd, 1 << 16)
            small[key.data] += data
            if not data:
                waiting.unregister(key.fileobj)
                os.close(key.fd)
            continue
        length = whole(4)
        if length is None:
            waiting.unregister(criu)
            continue
        name = whole(int.from_bytes(length, "little"))[2:].decode()
        _, pipes, _, _ = socket.recv_fds(criu, 1, 1)
        if name.startswith("pages-"):
            head(name, -1)
            waiting.register(pipes[0], selectors.EVENT_READ, PAGES)
        else:
            small[name] = b""
            waiting.register(pipes[0], selectors.EVENT_READ, name)
for name, data in small.items():
    head(name, len(data))
    sys.stdout.buffer.write(data)
