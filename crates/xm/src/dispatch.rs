//! Which function carries out which command, for commands in files of their own.

use clap::ArgMatches;

use crate::error::Error;
use crate::tool::Tool;
use crate::{
    claims, config_tool, devices, dump_core, event_monitor, explain, guest, log_merge, media,
    memory, orders, serve, shell, stats, top, update, vcpus, wait,
};

/// Carries out a command.
///
/// # Errors
///
/// As the command says.
pub fn execute(tool: Tool, name: &'static str, matches: &ArgMatches) -> Result<u8, Error> {
    match name {
        "channel-list" => devices::channel_list(matches)?,
        "cp" => guest::copy(matches)?,
        "exec" => return guest::exec(matches).map_err(Error::of_exec),
        "config" => return config_tool::config(tool, matches),
        "wait" => return wait::wait(matches),
        "shell" => return shell::shell(tool),
        "block-configure" => media::block_configure(matches)?,
        "cd-eject" => media::cd_eject(matches)?,
        "cd-insert" => media::cd_insert(matches)?,
        "claims" => claims::claims(matches)?,
        "config-update" => update::config_update(tool, matches)?,
        "debug-keys" => orders::debug_keys(matches)?,
        "domstate" => orders::domstate(matches)?,
        "dump-core" => dump_core::dump_core(tool, matches)?,
        "event-monitor" => event_monitor::event_monitor(matches)?,
        "explain" => explain::explain(matches)?,
        "log" => log_merge::log()?,
        "logs" => log_merge::logs(matches)?,
        "mem-max" => memory::mem_max(tool, matches)?,
        "mem-set" => memory::mem_set(tool, matches)?,
        "rename" => orders::rename(matches)?,
        "reset" => orders::reset(matches)?,
        "serve" => serve::serve()?,
        "stats" => stats::stats(matches)?,
        "sysrq" => orders::sysrq(matches)?,
        "top" => top::top(matches)?,
        "trigger" => orders::trigger(tool, matches)?,
        "vcpu-list" => vcpus::vcpu_list(tool, matches)?,
        "vcpu-set" => orders::vcpu_set(tool, matches)?,
        "vm-list" => claims::vm_list(matches)?,
        _ => {
            return Err(Error::NotThere {
                tool: tool.name(),
                command: name.to_owned(),
                lacks: "its code in this program",
            });
        }
    }
    Ok(0)
}
