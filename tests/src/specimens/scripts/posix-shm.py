import _posixshmem, mmap
fd = _posixshmem.shm_open("/area", os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
os.ftruncate(fd, 1 << 20)
area = mmap.mmap(fd, 1 << 20)
area[0:6] = b"before"
freeze()
assert area[0:6] == b"before"
area[6:11] = b"after"
again = mmap.mmap(_posixshmem.shm_open("/area", os.O_RDWR, mode=0o600), 1 << 20)
assert again[0:11] == b"beforeafter"
os._exit(7)
