# A host of the demo without a pool: init of namespaces of its own, with a name and a directory.
#
#   demo-host.sh NAME DIR COMMAND...
#
# Orders come by standard input:  run N   runs COMMAND in DIR/scratch; its streams and exit code are DIR/{out,log,code}-N
#                                 freeze  asks it for the host back
# The end of file, from any death of the demo, ends the host and removes its directory.
name=$1 dir=$2
shift 2
hostname "$name"
cd "$dir/scratch"

while read -r order number; do
    case $order in
    run)
        (
            "$@" </dev/null >"$dir/out-$number" 2>"$dir/log-$number" &
            echo $! >"$dir/pid"
            code=0
            wait $! || code=$?
            echo $code >"$dir/code.new"
            mv "$dir/code.new" "$dir/code-$number"
        ) &
        ;;
    freeze) kill -TERM "$(cat "$dir/pid")" ;;
    esac
done

# All that is left in the namespace but this process, which goes last.
kill -KILL -1 2>/dev/null || true
wait || true
cd /
rm -rf "$dir"
# The directory of all hosts goes with the last of them.
rmdir "${dir%/*}" 2>/dev/null || true
