# Children in the background, a coprocess, a trap, an array; `sleep` comes and goes.
leave=
trap 'leave=1' TERM
trap 'heard=usr1' USR1
declare -A table=([one]=1 [two]=2)
coproc upper { trap '' TERM; while read -r line; do echo "${line^^}"; done; }
sleep 1000 &
sleeper=$!
echo first >&"${upper[1]}"
echo ready
tick=0
while :; do
    tick=$((tick + 1))
    echo "tick $tick"
    [ -n "$leave" ] || [ -e /srv/go ] && break
    sleep 0.025
done
echo "done"
read -r answer <&"${upper[0]}"
[ "$answer" = FIRST ] || exit 1
echo second >&"${upper[1]}"
read -r answer <&"${upper[0]}"
[ "$answer" = SECOND ] && [ "${table[two]}" = 2 ] || exit 2
kill -USR1 $$
[ "$heard" = usr1 ] || exit 3
kill "$sleeper" || exit 4
wait "$sleeper"
[ $? = 143 ] || exit 5
exit 7
