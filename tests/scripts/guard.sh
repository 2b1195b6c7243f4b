# Owns a pool's namespaces and its directory: when the pool is to end, it ends both.
#
#   guard.sh DIR attached|detached
#
# attached: standard input is a pipe from the owner; its end of file, from a drop or from any death of the owner, ends the pool.
# detached: the pool lives until its keeper is killed.
dir=$1 mode=$2

# Whatever the caller left open (a jobserver, a test runner's pipes) would live on in every daemon of the pool. 255 is bash's own,
# for this script.
for fd in /proc/$BASHPID/fd/*; do
    fd=${fd##*/}
    if ((fd > 2 && fd != 255)); then eval "exec $fd>&-"; fi
done

read -r -a stat </proc/self/stat
echo "${stat[0]} ${stat[21]}" >"$dir/guard"

unshare --mount --net --pid --fork --kill-child --propagation private \
    bash -eu "$dir/keeper.sh" "$dir" </dev/null &
unshare=$!

if [ "$mode" = attached ]; then
    while read -r _; do :; done
    # Killing the init of a pid namespace returns its parent only when every process in it is gone; killing unshare
    # would not wait for them.
    if read -r init _ <"$dir/keeper"; then kill -KILL "$init"; else kill -KILL "$unshare"; fi
fi
wait "$unshare" || true
rm -rf --one-file-system "$dir"
