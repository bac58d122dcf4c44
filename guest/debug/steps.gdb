# stepi over a system call and a hot wrapper, next, step, finish, until.
break warmed
run walk
#> ^Breakpoint 1, warmed
delete
tbreak loop
continue
#> ^Temporary breakpoint 2, loop
next
next
#> in the loop
next
info locals
#> ^i = 0
until 55
info locals
#> ^sum = 499500
finish
#> = 499500
tbreak *hot
continue
#> ^Temporary breakpoint 3, .* in hot \(\)
x/2bx $pc
#> 0xb8\s0x6e
stepi
#> in hot \(\)
x/i $pc
#> syscall
stepi
#> in hot \(\)
print $rax == parent && $rcx == (long)&hot_end
#> = 1
stepi
#> in walk|walk \(\)
next
tbreak exit
continue
#> ^Temporary breakpoint 4, .* in exit
stepi 300
#> ^0x.* in
x/i $pc
#> ^=> 0x
continue
#> ^sum 499621
#> exited with code 045
