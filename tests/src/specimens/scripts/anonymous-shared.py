import mmap
area = mmap.mmap(-1, 16 << 20)
to_child, from_parent = os.pipe()
to_parent, from_child = os.pipe()
if os.fork() == 0:
    area[8 << 20:(8 << 20) + 5] = b"child"
    os.write(from_child, b"1")
    os.read(to_child, 1)
    os._exit(0 if area[0:6] == b"parent" and area[1 << 20:(1 << 20) + 5] == b"after" else 1)
os.read(to_parent, 1)
area[0:6] = b"parent"
freeze()
assert area[8 << 20:(8 << 20) + 5] == b"child"
area[1 << 20:(1 << 20) + 5] = b"after"
os.write(from_parent, b"2")
assert os.wait()[1] == 0
os._exit(7)
