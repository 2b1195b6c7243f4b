import os, signal, sys, time, threading

leave = False

def told(*_):
    global leave
    leave = True

signal.signal(signal.SIGTERM, told)

def freeze():
    print("ready", flush=True)
    tick = 0
    while True:
        tick += 1
        print("tick", tick, flush=True)
        if leave or os.path.exists("/srv/go"):
            break
        time.sleep(0.025)
    print("done", flush=True)

def libc():
    import ctypes
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.shmat.restype = ctypes.c_void_p
    return library

def checked(result):
    import ctypes
    assert result not in (-1, None), os.strerror(ctypes.get_errno())
    return result

