# Threads: all stop, breakpoints that only one meets, switching, stepping one alone.
break loop if n == 11
run threads
#> Thread .* hit Breakpoint 1, loop \(n=11\)
info threads
#> Thread .*main|Thread
#> Thread
#> Thread
#> Thread
thread 1
#> Switching to thread 1
backtrace
#> with_threads
thread apply all -q print $_thread
#> = 4
#> = 3
#> = 2
#> = 1
set scheduler-locking on
thread 3
next
next
#> in the loop
set scheduler-locking off
delete
tbreak all_there
continue
#> all_there
print rounds
#> = 150
delete
continue
#> ^rounds 150
#> exited normally
