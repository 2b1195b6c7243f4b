c = libc()
child = os.fork()
if child == 0:
    while True:
        signal.pause()
# PTRACE_SEIZE, as gdb -p and strace -p do.
checked(c.ptrace(0x4206, child, None, None))
freeze()
os.kill(child, signal.SIGKILL)
os._exit(7)
