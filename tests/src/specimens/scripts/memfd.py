import mmap
fd = os.memfd_create("ring")
os.ftruncate(fd, 1 << 20)
area = mmap.mmap(fd, 1 << 20)
area[0:4] = b"ring"
freeze()
os.pwrite(fd, b"king", 0)
assert area[0:4] == b"king"
os._exit(7)
