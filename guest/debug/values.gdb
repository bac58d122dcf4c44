# Registers and memory are changed, functions of the program are called.
break change
run walk
#> ^Breakpoint 1, change
print factorial(6)
#> = 720
print scale(1.5, 4)
#> = 6
print (int)hot() == parent
#> = 1
print watched = 99
set var beside = 5
print beside + watched
#> = 104
set var text = "altered by the debugger"
call (int)strlen(text)
#> = 23
set var $rdi = 1234
print $rdi
#> = 1234
print $xmm4.uint128 = 0x123456789abcdef
print/x $xmm4.v2_int64[0]
#> = 0x123456789abcdef
print $eflags
print $fs_base != 0
#> = 1
info registers rip
#> <change
x/s &text
#> "altered by the debugger"
up
#> walk
delete
tbreak *hot_end
continue
#> in hot \(\)
set var $rax = 77
continue
#> ^sum 499620 text altered by the debugger watched 43
#> exited with code 044
