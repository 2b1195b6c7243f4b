import ctypes, numpy
# OpenBLAS has a pool of threads of its own; python's work beside it.
a = numpy.random.default_rng(1).random((600, 600))
first = a @ a
sums = []
def work():
    for _ in range(3):
        sums.append(float((a @ a).sum()))
freeze()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert (a @ a == first).all() and len(sums) == 9 and len(set(sums)) == 1
assert len(os.listdir("/proc/self/task")) > 1 or os.cpu_count() == 1
os._exit(7)
