# A core file that the kernel wrote: true registers, true code, no matter what was patched.
#! echo '/tmp/debug/core.crash' >/proc/sys/kernel/core_pattern; echo 0 >/proc/sys/kernel/core_uses_pid; ulimit -c unlimited
#! echo 0x7f >/proc/self/coredump_filter; $target crash; echo "crash ended with $?"
core-file core.crash
#> ^Program terminated with signal SIGSEGV
#> ^#0 .*crash
print $rip == (long)&crash_here
#> = 1
print/x $rax
#> = 0x1122334455667788
print/x $r12
#> = 0x1122334455667788
print/x $rbx
#> = 0x5a5a
print/x $xmm3.v2_int64[0]
#> = 0x1122334455667788
print $_siginfo.si_signo
#> = 11
print/x (long)$_siginfo._sifields._sigfault.si_addr
#> = 0x0
print signals
#> = 0
dump binary memory crash.code hot hot_end+1
shell od -An -tx1 crash.code
#> b8 6e 00 00 00 0f 05 c3
disassemble getppid
#> mov +\$0x6e,%eax
#> syscall
backtrace
#> ^#1 .*main
