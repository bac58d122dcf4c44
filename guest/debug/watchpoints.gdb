# Hardware watchpoints on writes and on accesses, with a condition, and read ones.
break change
run walk
#> ^Breakpoint 1, change
delete
watch watched
#> ^Hardware watchpoint 2: watched
continue
#> ^Hardware watchpoint 2: watched
#> ^Old value = 1
#> ^New value = 42
continue
#> ^Hardware watchpoint 2: watched
#> ^Old value = 42
#> ^New value = 43
delete
awatch watched
#> ^Hardware access \(read/write\) watchpoint 3: watched
continue
#> ^Hardware access \(read/write\) watchpoint 3: watched
#> ^Value = 43
delete
# The C library reads text with vector instructions.
rwatch *(long *)text
#> ^Hardware read watchpoint 4
hbreak hot_end
#> ^Hardware assisted breakpoint 5
continue
#> ^Breakpoint 5, .* in hot \(\)
continue
#> ^Hardware read watchpoint 4
#> ^Value = 7.*
delete
continue
#> exited with code 045
