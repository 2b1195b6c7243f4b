import time as clock
fd = os.timerfd_create(clock.CLOCK_MONOTONIC)
os.timerfd_settime(fd, initial=0.01, interval=0.01)
clock.sleep(0.1)
freeze()
first = int.from_bytes(os.read(fd, 8), sys.byteorder)
assert first >= 1
import select
assert select.select([fd], [], [], 5)[0], "it ticks no more"
os._exit(7)
