import socket
link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
link.bind((0, 0))
freeze()
assert link.getsockname()[0] != 0
os._exit(7)
