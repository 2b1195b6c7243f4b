fd = os.memfd_create("box")
os.write(fd, b"in the box")
freeze()
assert os.pread(fd, 100, 0) == b"in the box"
os._exit(7)
