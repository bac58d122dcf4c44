//! A network without rights on the host: `passt`, which translates between Ethernet frames and
//! sockets of this user. It gives the guest addresses (DHCP, DHCPv6, NDP), leads its DNS questions to
//! the host's servers, and confines itself.

use super::SetupError;
use super::mac::Mac;
use crate::net::question::{self, is_answer, question};
use config::{PortForward, Protocol};
use kill_point::{kill_point, kill_point_of};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Its package, and its program.
const ENGINE: &str = "passt";
/// Bytes that wait in its socket.
const SOCKET_BUFFER: usize = 4 << 20;
/// Longest time it may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network that runs.
#[derive(Debug)]
pub(super) struct User {
    child: Child,
}

impl User {
    /// Starts a network; gives our end of its socket.
    pub(super) fn start(
        mac: Mac,
        mtu: Option<u16>,
        ports: &[PortForward],
    ) -> Result<(Self, OwnedFd), SetupError> {
        ports.iter().try_for_each(try_port)?;
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| SetupError::Engine { why: error.to_string() })?;
        // Its frames find room more often: it drops those that do not. As much as the host allows.
        for end in [&ours, &theirs] {
            let _as_it_was = rustix::net::sockopt::set_socket_send_buffer_size(end, SOCKET_BUFFER);
        }
        let mut command = Command::new(ENGINE);
        // It ends when its socket does: with the backend and this process.
        command.args(["--foreground", "--stderr", "--quiet", "--fd", "0"]);
        if let Some(mtu) = mtu {
            command.args(["--mtu", &mtu.to_string()]);
        }
        for port in ports {
            let option = match port.protocol {
                Protocol::Tcp => "--tcp-ports",
                Protocol::Udp => "--udp-ports",
            };
            let address = port.address.unwrap_or(Ipv4Addr::LOCALHOST);
            command.args([option, &format!("{address}/{}:{}", port.host, port.guest)]);
        }
        let spawned =
            command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let child = spawned.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SetupError::NoEngine,
            _ => SetupError::Engine { why: error.to_string() },
        })?;
        // Dropping it from here on ends it.
        let mut user = Self { child };
        // The command holds the other end as long as it lives.
        drop(command);
        kill_point("network.started");
        user.wait_until_ready(mac, &ours)?;
        kill_point("network.ready");
        user.may_die();
        Ok((user, ours))
    }

    /// Asks for the owner of an address until there is an answer.
    fn wait_until_ready(&mut self, mac: Mac, socket: &OwnedFd) -> Result<(), SetupError> {
        let failed = |why: &dyn ToString| SetupError::Engine { why: why.to_string() };
        let asked = [&[0, 0, 0, question::LENGTH as u8], &question(mac)[..]].concat();
        if rustix::net::send(socket, &asked, SendFlags::NOSIGNAL).is_err() {
            return Err(failed(&self.last_words()));
        }
        let end = Instant::now() + PATIENCE;
        let (mut answer, mut length) = ([0; PREFIX + question::LENGTH], 0);
        while length < answer.len() {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|error| failed(&error))?;
            let mut fds = [PollFd::new(socket, PollFlags::IN)];
            let _interrupted = rustix::event::poll(&mut fds, Some(&timeout));
            if left.is_zero() {
                return Err(failed(&format!("no answer in {PATIENCE:?}")));
            }
            let room = answer.get_mut(length..).unwrap_or_default();
            match rustix::net::recv(socket, room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(failed(&self.last_words())),
                Ok((_, count)) => length += count,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return Err(failed(&self.last_words())),
            }
        }
        if answer.get(PREFIX..).is_some_and(is_answer) {
            return Ok(());
        }
        Err(failed(&"its first frame is not the answer to a question"))
    }

    /// Why it ended.
    fn last_words(&mut self) -> String {
        self.end();
        let mut text = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _what_there_is = stderr.take(4096).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let told =
            |line: &&str| !line.is_empty() && !line.contains("syslog") && !line.contains("root.");
        text.lines().rfind(told).unwrap_or("it ended without a word").to_owned()
    }
}

impl User {
    /// It may be made to die.
    fn may_die(&self) {
        if let Some(pid) = i32::try_from(self.id()).ok().and_then(rustix::process::Pid::from_raw) {
            kill_point_of(pid, "passt.gone");
        }
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, whatever it does.
    pub(super) fn end(&mut self) {
        kill_point("network.ending");
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.end();
    }
}

const PREFIX: usize = 4;
/// Tries whether a port can be had, as `passt` does not say why not.
fn try_port(port: &PortForward) -> Result<(), SetupError> {
    let at = SocketAddrV4::new(port.address.unwrap_or(Ipv4Addr::LOCALHOST), port.host);
    let tried = match port.protocol {
        Protocol::Tcp => TcpListener::bind(at).map(drop),
        Protocol::Udp => UdpSocket::bind(at).map(drop),
    };
    tried.map_err(|source| SetupError::Port { port: port.to_string(), source })
}
