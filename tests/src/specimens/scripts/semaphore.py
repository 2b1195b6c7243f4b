import ctypes
c = libc()
c.sem_open.restype = ctypes.c_void_p
c.sem_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_uint]
c.sem_trywait.argtypes = c.sem_post.argtypes = [ctypes.c_void_p]
semaphore = checked(c.sem_open(b"/sema", os.O_CREAT | os.O_EXCL, 0o600, 3))
assert c.sem_trywait(semaphore) == 0
freeze()
other = checked(c.sem_open(b"/sema", 0, 0, 0))
assert [c.sem_trywait(other), c.sem_trywait(semaphore), c.sem_trywait(other)] == [0, 0, -1]
assert c.sem_post(other) == 0 and c.sem_trywait(semaphore) == 0
os._exit(7)
