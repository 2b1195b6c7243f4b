import multiprocessing
def square(x):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return x * x
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(square, range(10)) == [x * x for x in range(10)]
        freeze()
        assert pool.map(square, range(20)) == [x * x for x in range(20)]
        os._exit(7)
