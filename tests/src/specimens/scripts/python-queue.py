import multiprocessing
def serve(todo, done):
    while (item := todo.get()) is not None:
        done.put(item * item)
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    todo, done = context.Queue(), context.Queue()
    worker = context.Process(target=serve, args=(todo, done))
    worker.start()
    todo.put(2)
    assert done.get() == 4
    freeze()
    todo.put(3)
    assert done.get() == 9
    todo.put(None)
    worker.join()
    os._exit(7)
