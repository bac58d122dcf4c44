# gcore of a living program: true registers, true code.
#! echo 0x7f >/proc/self/coredump_filter
break change
run walk
#> ^Breakpoint 1, change
delete
set var text = "in the core"
tbreak *hot_end
continue
set var $r12 = 0x123456
gcore core.live
#> ^Saved corefile core.live
kill
core-file core.live
#> ^#0 .*in hot \(\)
print text
#> = "in the core"
print/x $r12
#> = 0x123456
print $rip == (long)&hot_end && $rax == parent
#> = 1
print watched
#> = 43
dump binary memory live.code hot hot_end+1
shell od -An -tx1 live.code
#> b8 6e 00 00 00 0f 05 c3
backtrace
#> ^#1 .*walk
#> ^#2 .*main
