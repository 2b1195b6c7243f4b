import ctypes, struct
c = libc()
# One instruction: allow everything.
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000))
program = struct.pack("HxxxxxxP", 1, ctypes.addressof(code))
checked(c.prctl(38, 1, 0, 0, 0))
checked(c.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0))
freeze()
os._exit(7)
