import mmap
with open("data", "wb") as file:
    file.write(bytes(range(256)) * 64)
file = open("data", "r+b")
shared = mmap.mmap(file.fileno(), 0)
private = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
shared[0:6] = b"shared"
private[8192:8199] = b"private"
freeze()
assert open("data", "rb").read(6) == b"shared"
shared[6:11] = b"again"
assert open("data", "rb").read(11) == b"sharedagain"
assert private[8192:8199] == b"private" and private[0:11] == b"sharedagain"
assert open("data", "rb").read()[8192:8199] != b"private"
os._exit(7)
