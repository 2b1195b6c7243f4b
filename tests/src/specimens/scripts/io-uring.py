import ctypes
c = libc()
parameters = ctypes.create_string_buffer(120)
checked(c.syscall(425, 4, parameters))
freeze()
os._exit(7)
