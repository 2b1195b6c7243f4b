import pty
pid, terminal = pty.fork()
if pid == 0:
    os.execlp("bash", "bash", "--norc", "--noprofile", "-i")
def say(text, until):
    os.write(terminal, text.encode())
    seen = ""
    while until not in seen:
        seen += os.read(terminal, 1000).decode()
    return seen
say("count=41; PS1=; stty -echo\n", "echo\r\n")
say("echo set-$count\n", "set-41")
freeze()
say("echo has-$((count + 1)); tty\n", "has-42")
say("[ -t 0 ] && echo a-terminal\n", "a-terminal")
os.write(terminal, b"exit 3\n")
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
os._exit(7)
