import multiprocessing
def square(x):
    return x * x
if __name__ == "__main__":
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        assert pool.map(square, range(10)) == [x * x for x in range(10)]
        freeze()
        assert pool.map(square, range(20)) == [x * x for x in range(20)]
        os._exit(7)
