import socket
left, right = socket.socketpair()
read, write = os.pipe()
os.write(write, b"through the pipe")
file = os.open("sent", os.O_RDWR | os.O_CREAT)
os.write(file, b"0123")
socket.send_fds(left, [b"x"], [read, file])
os.close(read)
os.close(file)
freeze()
message, (read, file), _, _ = socket.recv_fds(right, 10, 2)
assert message == b"x"
assert os.read(read, 100) == b"through the pipe"
os.write(file, b"4567")
assert os.pread(file, 100, 0) == b"01234567"
os._exit(7)
