# Attaching to a program that runs, and leaving it running; then again.
#! rm -f /tmp/spin.pid; $target spin & spinner=$!; while [ ! -s /tmp/spin.pid ]; do sleep 0.1; done
#! echo "attach $(cat /tmp/spin.pid)" >attach-it
#< wait $spinner; echo "spin ended with $?" >>out
source attach-it
#> ^(0x.* in )?(spin|hot)
info proc
#> ^cmdline = '.*target spin'
print factorial(4)
#> = 24
set var $before = rounds
tbreak hot_end
continue
#> in hot \(\)
print rounds > $before
#> = 1
detach
#> ^\[Inferior 1 .* detached\]
shell sleep 0.3
source attach-it
print rounds > $before
#> = 1
watch stop
set var stop = 1
detach
#> detached
#> ^spin ended with 17
