import ctypes
c = libc()
c.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
# FAN_REPORT_FID is what an ordinary user may ask for.
fd = checked(c.fanotify_init(0x202, os.O_RDONLY))
open("watched", "w").close()
checked(c.fanotify_mark(fd, 1, 2, -100, b"watched"))
freeze()
open("watched", "w").write("x")
assert os.read(fd, 4096)
os._exit(7)
