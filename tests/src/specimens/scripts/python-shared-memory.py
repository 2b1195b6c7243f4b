from multiprocessing import shared_memory
area = shared_memory.SharedMemory(create=True, size=1 << 20)
area.buf[0:6] = b"before"
freeze()
area.buf[6:11] = b"after"
again = shared_memory.SharedMemory(area.name)
assert bytes(again.buf[0:11]) == b"beforeafter"
area.unlink()
os._exit(7)
