"""A file over a connection: `link.py FILE` takes one on port 9700 and has it on the disk before it says so, `link.py` sends
standard input."""

import os
import socket
import sys

if sys.argv[1:]:
    listener = socket.create_server(("127.0.0.1", 9700))
    print("listening", flush=True)
    connection, _ = listener.accept()
    with open(sys.argv[1], "wb") as file:
        while data := connection.recv(1 << 20):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    connection.sendall(b"done")
else:
    connection = socket.create_connection(("127.0.0.1", 9700))
    while data := os.read(0, 1 << 20):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(4) == b"done"
