# Watchpoints on data that string, vector, locked and stack instructions write; flags and system
# calls of a program under watch.
break warmed
run accesses
#> warmed
delete
watch bytes[9]
watch bytes[33]
watch words[2]
watch words[3]
continue
#> ^Hardware watchpoint 2: bytes.9
#> ^New value = 57 '9'
continue
#> ^Hardware watchpoint 3: bytes.33
#> ^New value = 57 '9'
continue
#> ^Hardware watchpoint 4: words.2
#> ^New value = 5
continue
#> ^Hardware watchpoint 5: words.3
#> ^New value = 77
continue
#> ^good 300 trap flag 0
#> exited normally
