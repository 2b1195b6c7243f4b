child = os.fork()
if child == 0:
    signal.pause()
fd = os.pidfd_open(child)
freeze()
signal.pidfd_send_signal(fd, signal.SIGKILL)
result = os.waitid(os.P_PIDFD, fd, os.WEXITED)
assert (result.si_pid, result.si_status) == (child, signal.SIGKILL)
os._exit(7)
