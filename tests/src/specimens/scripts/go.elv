# A shell that is written in Go: its scheduler, its collector, goroutines for each part of a pipeline.
use path
use os
var sum = (range 1000 | each {|x| * $x $x } | + (all))
echo ready
var tick = 0
while $true {
  set tick = (+ $tick 1)
  echo 'tick '$tick
  if (path:is-regular /srv/go) { break }
  sleep 0.025
}
echo done
if (== $sum (range 1000 | peach {|x| * $x $x } | + (all))) { exit 7 }
exit 1
