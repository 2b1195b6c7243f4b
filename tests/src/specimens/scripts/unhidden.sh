# A child that hears nothing of our variables: whatever instructions its libc likes.
coproc python { exec env -i /usr/bin/python3 -c '
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
text = bytes(97 + n % 26 for n in range(100000))
while sys.stdin.readline():
    assert text.find(b"zz") == -1 and text + b"x" == text + bytes([120])
    print("seen", flush=True)
'; }
ask() {
    echo >&"${python[1]}"
    read -r answer <&"${python[0]}"
    [ "$answer" = seen ] || exit "$1"
}
ask 1
echo ready
tick=0
while :; do
    tick=$((tick + 1))
    echo "tick $tick"
    [ -e /srv/go ] && break
    sleep 0.025
done
echo "done"
ask 2
exit 7
