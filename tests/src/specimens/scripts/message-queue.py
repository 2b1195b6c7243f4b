import ctypes
c = libc()
c.mq_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
queue = checked(c.mq_open(b"/queue", os.O_CREAT | os.O_RDWR, 0o600, None))
checked(c.mq_send(queue, b"message", 7, 1))
freeze()
text = ctypes.create_string_buffer(8192)
assert c.mq_receive(queue, text, 8192, None) == 7
os._exit(7)
