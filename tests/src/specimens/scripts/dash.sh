# A shell script as users write them: a pipeline, a file descriptor of its own, command substitution.
exec 4>numbers
echo ready
tick=0
while [ ! -e /srv/go ]; do
    tick=$((tick + 1))
    echo "tick $tick"
    echo "$tick" >&4
    sleep 0.025
done
tick=$((tick + 1))
echo "tick $tick"
echo "$tick" >&4
echo "done"
[ "$(sort -n numbers | uniq | wc -l)" = "$tick" ] || exit 1
exit 7
