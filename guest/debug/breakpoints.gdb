# Breakpoints at a function, on a hot system-call wrapper and in its middle, in a loop with a condition.
break warmed
run walk
#> ^Breakpoint 1, warmed
finish
break *hot
break *&hot_call
break *hot_end
tbreak loop
continue
#> ^Temporary breakpoint 5, loop
break 53 if i == 500
#> ^Breakpoint 6 at
info line 53
continue
#> ^Breakpoint 6, loop
print i
#> = 500
print sum
#> = 125250
ignore 6 2
condition 6 i > 500 && i % 100 == 0
continue
#> ^Breakpoint 6, loop
print i
#> = 800
delete 6
tbreak factorial if n == 2
continue
#> ^Temporary breakpoint 7, factorial .n=2
backtrace
#> ^#0 .*factorial .n=2
#> ^#3 .*factorial .n=5
#> ^#4 .*walk
finish
#> ^Value returned is .* = 2
continue
#> ^Breakpoint 2, .* in hot \(\)
x/3i $pc
#> <hot>:.*mov +\$0x6e,%eax
#> <hot\+5>:.*syscall
#> <hot\+7>:.*ret
continue
#> ^Breakpoint 3, .* in hot \(\)
print $rax
#> = 110
continue
#> ^Breakpoint 4, .* in hot \(\)
print $rax == parent
#> = 1
delete
continue
#> ^sum 499621 text unchanged watched 43
#> exited with code 045
