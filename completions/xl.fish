# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_xl_global_optspecs
    string join \n h/help
end

function __fish_xl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_xl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_xl_using_subcommand
    set -l cmd (__fish_xl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c xl -n "__fish_xl_needs_command" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_needs_command" -f -a "console" -d 'Attach to a domain\'s console; leave it with Ctrl+] (Ctrl+5)'
complete -c xl -n "__fish_xl_needs_command" -f -a "create" -d 'Create a domain from a configuration file and start it'
complete -c xl -n "__fish_xl_needs_command" -f -a "destroy" -d 'End a domain at once, without asking it'
complete -c xl -n "__fish_xl_needs_command" -f -a "dmesg" -d 'Print the hypervisor\'s messages: those of every domain\'s monitor'
complete -c xl -n "__fish_xl_needs_command" -f -a "domid" -d 'Print the id of a domain'
complete -c xl -n "__fish_xl_needs_command" -f -a "domname" -d 'Print the name of a domain'
complete -c xl -n "__fish_xl_needs_command" -f -a "info" -d 'Print facts about the host and the hypervisor; memory in MiB'
complete -c xl -n "__fish_xl_needs_command" -f -a "list" -d 'List domains: name, id, memory in MiB, virtual CPUs, state, CPU seconds'
complete -c xl -n "__fish_xl_needs_command" -f -a "pause" -d 'Stop a domain\'s virtual CPUs; it keeps its memory and devices'
complete -c xl -n "__fish_xl_needs_command" -f -a "reboot" -d 'Ask a domain to reboot; its own system does the work'
complete -c xl -n "__fish_xl_needs_command" -f -a "shutdown" -d 'Ask a domain to shut down; its own system does the work'
complete -c xl -n "__fish_xl_needs_command" -f -a "unpause" -d 'Let a paused domain go on'
complete -c xl -n "__fish_xl_needs_command" -f -a "uptime" -d 'Print how long domains have been up'
complete -c xl -n "__fish_xl_needs_command" -f -a "new" -d 'Store a domain, which \'start\' then starts'
complete -c xl -n "__fish_xl_needs_command" -f -a "start" -d 'Start a stored domain'
complete -c xl -n "__fish_xl_needs_command" -f -a "delete" -d 'Delete a stored domain that does not run; its disks are left alone'
complete -c xl -n "__fish_xl_needs_command" -f -a "block-attach" -d 'Give a running domain another disk'
complete -c xl -n "__fish_xl_needs_command" -f -a "block-detach" -d 'Take a disk away from a running domain'
complete -c xl -n "__fish_xl_needs_command" -f -a "block-list" -d 'List a domain\'s disks'
complete -c xl -n "__fish_xl_needs_command" -f -a "network-attach" -d 'Give a running domain another network interface'
complete -c xl -n "__fish_xl_needs_command" -f -a "network-detach" -d 'Take a network interface away from a running domain'
complete -c xl -n "__fish_xl_needs_command" -f -a "network-list" -d 'List a domain\'s network interfaces'
complete -c xl -n "__fish_xl_needs_command" -f -a "block-refresh" -d 'Show a running domain the new size of a disk whose image has grown'
complete -c xl -n "__fish_xl_needs_command" -f -a "block-resize" -d 'Make a disk of a running domain larger; the guest sees it at once'
complete -c xl -n "__fish_xl_needs_command" -f -a "crash-report" -d 'Print why a domain crashed: the reason, its registers, its last messages'
complete -c xl -n "__fish_xl_needs_command" -f -a "doctor" -d 'Check what of this host works for domains, and say what to do about the rest'
complete -c xl -n "__fish_xl_needs_command" -f -a "image" -d 'Build a guest: root file system, kernel, initramfs and configuration file'
complete -c xl -n "__fish_xl_needs_command" -f -a "network-bridge" -d 'Make or remove a bridge over the host\'s uplink, for guests with bridge=xenbr0'
complete -c xl -n "__fish_xl_needs_command" -f -a "config" -d 'Check, show or edit configurations; show the host\'s settings'
complete -c xl -n "__fish_xl_needs_command" -f -a "cp" -d 'Copy files and directories into a guest or out of it, without a network'
complete -c xl -n "__fish_xl_needs_command" -f -a "exec" -d 'Run a command in a guest, as root and without a network'
complete -c xl -n "__fish_xl_needs_command" -f -a "explain" -d 'Explain an error code: what happened, why, what to do next'
complete -c xl -n "__fish_xl_needs_command" -f -a "logs" -d 'Print or follow the logs of domains and programs, by time'
complete -c xl -n "__fish_xl_needs_command" -f -a "stats" -d 'Print what domains have used and moved: CPU time, memory, disks, interfaces'
complete -c xl -n "__fish_xl_needs_command" -f -a "wait" -d 'Wait until a domain is gone, or in a given state'
complete -c xl -n "__fish_xl_needs_command" -f -a "dump-core" -d 'Write a domain\'s memory and registers into a core file'
complete -c xl -n "__fish_xl_needs_command" -f -a "rename" -d 'Give a domain another name'
complete -c xl -n "__fish_xl_needs_command" -f -a "domstate" -d 'Print a domain\'s state in one word'
complete -c xl -n "__fish_xl_needs_command" -f -a "log" -d 'Print the logs of all domains and programs, by time'
complete -c xl -n "__fish_xl_needs_command" -f -a "reset" -d 'End a domain\'s guest at once and start it anew'
complete -c xl -n "__fish_xl_needs_command" -f -a "top" -d 'Watch domains: CPU time, memory, disks, networks'
complete -c xl -n "__fish_xl_needs_command" -f -a "sysrq" -d 'Send a magic SysRq key to a domain\'s kernel'
complete -c xl -n "__fish_xl_needs_command" -f -a "trigger" -d 'Press one of a domain\'s buttons'
complete -c xl -n "__fish_xl_needs_command" -f -a "debug-keys" -d 'Have domains\' processes write about their inside into dmesg'
complete -c xl -n "__fish_xl_needs_command" -f -a "mem-max" -d 'Limit the memory that a domain may have'
complete -c xl -n "__fish_xl_needs_command" -f -a "mem-set" -d 'Ask a domain to change the size of its memory'
complete -c xl -n "__fish_xl_needs_command" -f -a "vcpu-list" -d 'List the virtual CPUs of domains'
complete -c xl -n "__fish_xl_needs_command" -f -a "vcpu-set" -d 'Set the number of virtual CPUs that a domain uses'
complete -c xl -n "__fish_xl_needs_command" -f -a "block-configure" -d 'Put another medium into a drive of a running domain'
complete -c xl -n "__fish_xl_needs_command" -f -a "cd-insert" -d 'Put a disc into a CD drive of a running domain'
complete -c xl -n "__fish_xl_needs_command" -f -a "cd-eject" -d 'Take the disc out of a CD drive of a running domain'
complete -c xl -n "__fish_xl_needs_command" -f -a "channel-list" -d 'List a domain\'s channels to programs in it'
complete -c xl -n "__fish_xl_needs_command" -f -a "vm-list" -d 'List the domains that run: UUID, id and name'
complete -c xl -n "__fish_xl_needs_command" -f -a "config-update" -d 'Give a domain another configuration for its next start'
complete -c xl -n "__fish_xl_needs_command" -f -a "claims" -d 'List the memory of the host that domains were promised and have not taken yet'
complete -c xl -n "__fish_xl_needs_command" -f -a "serve" -d 'Speak the control daemon\'s HTTP interface on standard input and output'
complete -c xl -n "__fish_xl_needs_command" -f -a "shell" -d 'Read commands from an interactive prompt'
complete -c xl -n "__fish_xl_needs_command" -f -a "event-monitor" -d 'Print what happens to domains, as it happens'
complete -c xl -n "__fish_xl_needs_command" -f -a "help" -d 'List all commands'
complete -c xl -n "__fish_xl_using_subcommand console" -s n -l num -d 'Number of the console; every domain has one, number 0' -r
complete -c xl -n "__fish_xl_using_subcommand console" -s q -l quiet -d 'Print nothing but what the domain prints'
complete -c xl -n "__fish_xl_using_subcommand console" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand create" -s f -l defconfig -d 'Configuration file; the same as giving it as an operand' -r -F
complete -c xl -n "__fish_xl_using_subcommand create" -l path -d 'Directories to search for the file [default: .]' -r
complete -c xl -n "__fish_xl_using_subcommand create" -s c -l console_autoconnect -d 'Attach the console from its first byte on'
complete -c xl -n "__fish_xl_using_subcommand create" -s p -l paused -d 'Leave the domain paused after it was created'
complete -c xl -n "__fish_xl_using_subcommand create" -s n -l dryrun -d 'Print the resulting configuration; create nothing'
complete -c xl -n "__fish_xl_using_subcommand create" -s q -l quiet -d 'Do not say which file is used and what was started'
complete -c xl -n "__fish_xl_using_subcommand create" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand destroy" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand dmesg" -s c -l clear -d 'Clear the messages after printing them'
complete -c xl -n "__fish_xl_using_subcommand dmesg" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand domid" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand domname" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand info" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand info" -s c -l config -d 'Print where this installation keeps and finds its files'
complete -c xl -n "__fish_xl_using_subcommand info" -s n -l numa -d 'Print the NUMA topology as well'
complete -c xl -n "__fish_xl_using_subcommand info" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand list" -s l -l long -d 'Print everything known, as JSON'
complete -c xl -n "__fish_xl_using_subcommand list" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand list" -s v -l vcpus -d 'Deprecated: vcpu-list'
complete -c xl -n "__fish_xl_using_subcommand list" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand pause" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand reboot" -s a -l all -d 'All domains except Domain-0'
complete -c xl -n "__fish_xl_using_subcommand reboot" -s w -l wait -d 'Wait until the domains have started again'
complete -c xl -n "__fish_xl_using_subcommand reboot" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand shutdown" -s a -l all -d 'All domains except Domain-0'
complete -c xl -n "__fish_xl_using_subcommand shutdown" -s w -l wait -d 'Wait until the domains are gone'
complete -c xl -n "__fish_xl_using_subcommand shutdown" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand unpause" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand uptime" -s s -l short -d 'One line per domain as uptime(1) prints it'
complete -c xl -n "__fish_xl_using_subcommand uptime" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand uptime" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand new" -s f -l defconfig -d 'Configuration file; the same as giving it as an operand' -r -F
complete -c xl -n "__fish_xl_using_subcommand new" -l path -d 'Directories to search for the file [default: .]' -r
complete -c xl -n "__fish_xl_using_subcommand new" -s q -l quiet -d 'Do not say which file is used and what was started'
complete -c xl -n "__fish_xl_using_subcommand new" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand start" -s c -l console_autoconnect -d 'Attach the console from its first byte on'
complete -c xl -n "__fish_xl_using_subcommand start" -s p -l paused -d 'Leave the domain paused after it was started'
complete -c xl -n "__fish_xl_using_subcommand start" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand delete" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand block-attach" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand block-detach" -s f -l force -d 'Even if the guest uses it'
complete -c xl -n "__fish_xl_using_subcommand block-detach" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand block-list" -s l -l long -d 'Everything known, as JSON'
complete -c xl -n "__fish_xl_using_subcommand block-list" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand block-list" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand network-attach" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand network-detach" -s f -l force -d 'Even if the guest uses it'
complete -c xl -n "__fish_xl_using_subcommand network-detach" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand network-list" -s l -l long -d 'Everything known, as JSON'
complete -c xl -n "__fish_xl_using_subcommand network-list" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand network-list" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand block-refresh" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand block-resize" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand crash-report" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand doctor" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand image" -s o -l output -d 'Directory to make for the files' -r -f -a "(__fish_complete_directories)"
complete -c xl -n "__fish_xl_using_subcommand image" -l size -d 'Size of the disk, like 700M or 2G [default: by content]' -r
complete -c xl -n "__fish_xl_using_subcommand image" -l swap -d 'Swap space as a second disk [default: none]' -r
complete -c xl -n "__fish_xl_using_subcommand image" -l packages -d 'Packages to install as well' -r
complete -c xl -n "__fish_xl_using_subcommand image" -l hostname -d 'Name of the guest and of its domain [default: serv1]' -r
complete -c xl -n "__fish_xl_using_subcommand image" -l mac -d 'Address of its network card [default: at random]' -r
complete -c xl -n "__fish_xl_using_subcommand image" -l vif -d 'More for its network card, as in a configuration: bridge=xenbr0 [default: a network that needs no rights]' -r
complete -c xl -n "__fish_xl_using_subcommand image" -l memory -d 'Memory of the domain [default: 256]' -r
complete -c xl -n "__fish_xl_using_subcommand image" -l root-password -d 'Root\'s password, \'\' for none [default: at random]' -r
complete -c xl -n "__fish_xl_using_subcommand image" -l ssh-key -d 'Public key for root, and an SSH server' -r -F
complete -c xl -n "__fish_xl_using_subcommand image" -l mirror -d 'Archive of packages [default: the host\'s, or the usual]' -r
complete -c xl -n "__fish_xl_using_subcommand image" -l security-mirror -d 'Archive of security updates' -r
complete -c xl -n "__fish_xl_using_subcommand image" -l keyring -d 'Keys of the archive, if not the usual ones' -r -F
complete -c xl -n "__fish_xl_using_subcommand image" -l force -d 'Replace an image that is there, when the new one is complete'
complete -c xl -n "__fish_xl_using_subcommand image" -s q -l quiet -d 'Do not tell the progress'
complete -c xl -n "__fish_xl_using_subcommand image" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand image" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand network-bridge" -s n -l dry-run -d 'With start: print the steps, change nothing'
complete -c xl -n "__fish_xl_using_subcommand network-bridge" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand config" -l format -d 'With show: cfg (as a file has it; default), sxp or json' -r -f -a "cfg\t''
sxp\t''
json\t''"
complete -c xl -n "__fish_xl_using_subcommand config" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand config" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand cp" -l timeout -d 'How long to wait for the guest\'s agent to answer [default: 10]' -r
complete -c xl -n "__fish_xl_using_subcommand cp" -s q -l quiet -d 'Show no progress on a terminal'
complete -c xl -n "__fish_xl_using_subcommand cp" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand exec" -s e -l env -d 'Add to its environment; any number of times' -r
complete -c xl -n "__fish_xl_using_subcommand exec" -s w -l workdir -d 'Where it runs [default: root\'s home]' -r
complete -c xl -n "__fish_xl_using_subcommand exec" -l timeout -d 'How long to wait for the guest\'s agent to answer [default: 10]' -r
complete -c xl -n "__fish_xl_using_subcommand exec" -s t -l tty -d 'Give it a terminal, which is yours'
complete -c xl -n "__fish_xl_using_subcommand exec" -s n -l no-stdin -d 'Leave this command\'s input alone (for loops)'
complete -c xl -n "__fish_xl_using_subcommand exec" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand explain" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand explain" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand logs" -s n -l lines -d 'Only the last N lines to begin with' -r
complete -c xl -n "__fish_xl_using_subcommand logs" -l level -d 'Only what matters as much as this, or more' -r -f -a "error\t''
warning\t''
info\t''
debug\t''"
complete -c xl -n "__fish_xl_using_subcommand logs" -s f -l follow -d 'Go on with what is written from now on'
complete -c xl -n "__fish_xl_using_subcommand logs" -l json -d 'A JSON object for each line'
complete -c xl -n "__fish_xl_using_subcommand logs" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand stats" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand stats" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand wait" -l for -d 'gone (default), shutdown, exists, running or paused' -r -f -a "gone\t''
shutdown\t''
exists\t''
running\t''
paused\t''"
complete -c xl -n "__fish_xl_using_subcommand wait" -s t -l timeout -d 'Not longer than this' -r
complete -c xl -n "__fish_xl_using_subcommand wait" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand wait" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand dump-core" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand rename" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand domstate" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand domstate" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand log" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand reset" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand top" -s d -l delay -d 'Seconds between two looks [default: 3]' -r
complete -c xl -n "__fish_xl_using_subcommand top" -s i -l iterations -d 'End after so many looks' -r
complete -c xl -n "__fish_xl_using_subcommand top" -l sort -d 'id (default), name, cpu-time, cpu, memory, network or disk' -r -f -a "id\t''
name\t''
cpu-time\t''
cpu\t''
memory\t''
network\t''
disk\t''"
complete -c xl -n "__fish_xl_using_subcommand top" -s b -l batch -d 'Print text instead of a full screen'
complete -c xl -n "__fish_xl_using_subcommand top" -s n -l networks -d 'A line for each network interface'
complete -c xl -n "__fish_xl_using_subcommand top" -s x -l vbds -d 'A line for each disk'
complete -c xl -n "__fish_xl_using_subcommand top" -s v -l vcpus -d 'A line for the virtual CPUs'
complete -c xl -n "__fish_xl_using_subcommand top" -s f -l full-name -d 'Do not cut names'
complete -c xl -n "__fish_xl_using_subcommand top" -l json -d 'Print a JSON object for each look, for programs'
complete -c xl -n "__fish_xl_using_subcommand top" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand sysrq" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand trigger" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand debug-keys" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand mem-max" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand mem-set" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand vcpu-list" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand vcpu-list" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand vcpu-set" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand block-configure" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand cd-insert" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand cd-eject" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand channel-list" -s l -l long -d 'Everything known, as JSON'
complete -c xl -n "__fish_xl_using_subcommand channel-list" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand channel-list" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand vm-list" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand vm-list" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand config-update" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand claims" -l json -d 'Print JSON, for programs'
complete -c xl -n "__fish_xl_using_subcommand claims" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand serve" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand shell" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand event-monitor" -s n -l count -d 'End after so many events' -r
complete -c xl -n "__fish_xl_using_subcommand event-monitor" -l json -d 'Print a JSON object for each event, for programs'
complete -c xl -n "__fish_xl_using_subcommand event-monitor" -s h -l help -d 'Print help'
complete -c xl -n "__fish_xl_using_subcommand help" -s h -l help -d 'Print help'
