# Signals stop the program, are passed or not, and handlers are stepped into.
handle SIGUSR1 stop print pass
handle SIGALRM nostop noprint pass
break on_signal
run signals
#> ^Program received signal SIGUSR1
continue
#> ^Breakpoint 1, on_signal \(number=10\)
backtrace
#> <signal handler called>
#> with_signals
finish
#> <signal handler called>
stepi
delete
tbreak on_signal
continue
#> on_signal \(number=14\)
print signals
#> = 1
continue
#> ^signals 2
#> exited with code 02
handle SIGUSR1 stop print nopass
tbreak with_signals
run signals
#> with_signals
continue
#> ^Program received signal SIGUSR1
signal 0
#> ^signals 1
#> exited with code 01
