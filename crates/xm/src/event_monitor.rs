//! `event-monitor`: what happens to domains, as it happens.

use api::types::{Event, Happening, Who};
use api::{Daemon, Events};
use clap::ArgMatches;
use control::EndedAs;

use crate::daemon::daemon;
use crate::error::Error;
use crate::output::{harmless, put};

/// `event-monitor [--json] [-n N]`.
///
/// # Errors
///
/// When the daemon cannot be reached, or nobody reads the output any more.
pub fn event_monitor(matches: &ArgMatches) -> Result<(), Error> {
    let json = matches.get_flag("json");
    let mut left = matches.get_one::<u64>("count").copied();
    let daemon = daemon();
    loop {
        let mut events = listen(&daemon, json)?;
        while let Some(event) = events.next(None)? {
            put(&line(&event, json)?)?;
            left = left.map(|left| left.saturating_sub(1));
            if left == Some(0) {
                return Ok(());
            }
        }
        // The daemon ended or was killed. Another one tells first what it found, and what is gone.
    }
}

/// Begins a stream, and says so: what happens from now on comes in it.
fn listen(daemon: &Daemon, json: bool) -> Result<Events, Error> {
    let events = daemon.events()?;
    put(&line(&Event { at: now(), what: Happening::Listening }, json)?)?;
    Ok(events)
}

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

fn line(event: &Event, json: bool) -> Result<String, Error> {
    if json {
        return Ok(format!("{}\n", serde_json::to_string(event)?));
    }
    let at = i64::try_from(event.at).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    let at = at.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ");
    Ok(format!("{at} {}\n", harmless(&told(&event.what))))
}

fn shown(who: &Who) -> String {
    match who.domid {
        Some(domid) => format!("{} ({domid})", who.name),
        None => who.name.clone(),
    }
}

fn told(what: &Happening) -> String {
    match what {
        Happening::Listening => "listening".to_owned(),
        Happening::Up(who) => format!("up        {}", shown(who)),
        Happening::Paused(who) => format!("paused    {}", shown(who)),
        Happening::Unpaused(who) => format!("unpaused  {}", shown(who)),
        Happening::Renamed { who, before } => format!("renamed   {}, was {before}", shown(who)),
        Happening::Stopped { who, reason, outcome } => {
            let outcome = match outcome {
                EndedAs::Destroyed => "goes".to_owned(),
                EndedAs::Preserved => "is kept".to_owned(),
                EndedAs::Restarting => "starts again".to_owned(),
                EndedAs::Restarted { domid } => format!("runs again as {domid}"),
            };
            format!("stopped   {}: {reason}, {outcome}", shown(who))
        }
        Happening::Gone(past) => format!("gone      {} ({}): {}", past.name, past.domid, past.how),
        Happening::Stored(who) => format!("stored    {}", shown(who)),
        Happening::Deleted(who) => format!("deleted   {}", shown(who)),
        Happening::Lost { count } => {
            format!("lost      {count} events came too fast; 'xm list' shows how it is now")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_event() {
        let who = Who { domid: Some(3), name: "one".into(), uuid: control::Uuid([0; 16]) };
        let up = Event { at: 1_700_000_000, what: Happening::Up(who.clone()) };
        assert_eq!(line(&up, false).unwrap(), "2023-11-14T22:13:20Z up        one (3)\n");
        assert!(
            line(&up, true).unwrap().starts_with(r#"{"at":1700000000,"event":"up","domid":3,"#)
        );
        let what = Happening::Stopped {
            who,
            reason: control::ShutdownReason::Reboot,
            outcome: EndedAs::Restarting,
        };
        assert_eq!(told(&what), "stopped   one (3): reboot, starts again");
    }
}
