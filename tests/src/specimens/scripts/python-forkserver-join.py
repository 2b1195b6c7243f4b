import multiprocessing
def serve(todo):
    todo.get()
if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    todo = context.Queue()
    worker = context.Process(target=serve, args=(todo,))
    worker.start()
    freeze()
    todo.put(None)
    worker.join(30)
    assert worker.exitcode == 0
    os._exit(7)
