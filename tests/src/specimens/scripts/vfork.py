import subprocess
ended = []
def spawn():
    while not ended:
        subprocess.run(["true"], check=True)
thread = threading.Thread(target=spawn)
thread.start()
freeze()
assert thread.is_alive()
ended.append(1)
thread.join()
os._exit(7)
