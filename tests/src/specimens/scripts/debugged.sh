# A program under gdb, as somebody leaves it overnight.
leave=
trap 'leave=1' TERM
gdb -q -batch -ex run --args sleep 1000 >gdb.log 2>&1 &
until grep -q '^TracerPid:[[:space:]]*[1-9]' /proc/[0-9]*/status 2>/dev/null; do sleep 0.05; done
echo ready
tick=0
while :; do
    tick=$((tick + 1))
    echo "tick $tick"
    [ -n "$leave" ] || [ -e /srv/go ] && break
    sleep 0.025
done
echo "done"
pkill -x sleep || kill %1
exit 7
