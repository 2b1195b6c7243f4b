import queue, hashlib
todo, done = queue.Queue(), queue.Queue()
def work():
    while (item := todo.get()) is not None:
        digest = item.to_bytes(8, "big")
        for _ in range(2000):
            digest = hashlib.sha256(digest).digest()
        done.put((item, digest))
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for item in range(200):
    todo.put(item)
freeze()
for _ in threads:
    todo.put(None)
for thread in threads:
    thread.join()
results = dict(done.get() for _ in range(200))
assert sorted(results) == list(range(200))
os._exit(7)
