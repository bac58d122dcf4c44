# catch syscall, on entry and on return; with patched sites too.
catch syscall 1
catch syscall 110
run calls
#> ^Catchpoint 1 \(call to syscall 1\)
print $rdx
#> = 12
continue
#> ^Catchpoint 1 \(returned from syscall 1\)
print $rax
#> = 12
delete
catch fork
catch syscall 3
continue
#> ^Catchpoint 4 \(call to syscall 3\)
print $rdi
#> = 999
continue
#> ^Catchpoint 4 \(returned from syscall 3\)
print (int)$rax
#> = -9
delete 4
continue
#> ^Catchpoint 3 \(forked process
continue
#> exited with code 05
delete
break warmed
run walk
#> warmed
catch syscall 110
continue
#> ^Catchpoint .*\(call to syscall 110\), .*in hot
continue
#> ^Catchpoint .*\(returned from syscall 110\)
print $rax == parent
#> = 1
delete
continue
#> exited with code 045
