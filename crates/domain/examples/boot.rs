//! Boots a kernel without configuration, registry or tools, with its console on
//! standard input and output: for work on the monitor.
//!
//! ```text
//! boot KERNEL RAMDISK|- MEMORY_MIB COMMAND_LINE...
//! ```
//!
//! `XENOLITH_SPACE` names the monitor, `XENOLITH_DEBUG=1` lets it write to
//! standard error, `XENOLITH_FLAGS` is the number for `Setup::flags`.

use boundary::{bell, inbox, vcpu_state};
use domain::builder::{self, ClockStart, Order, Ramdisk};
use domain::console::ConsoleRing;
use domain::space::{self, CpuTime, DomainMemory, DomainPageView, Doorbell, Ring, RingReader};
use kernel::{KernelImage, Limits};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, ramdisk, memory, command_line @ ..] = arguments.as_slice() else {
        return Err("usage: boot KERNEL RAMDISK|- MEMORY_MIB COMMAND_LINE...".into());
    };
    let start = Instant::now();
    let clock = ClockStart::now();
    let memory: u64 = memory.parse()?;
    let file = std::fs::read(kernel)?;
    let (image, ram) = std::thread::scope(|scope| {
        let bytes = file.len() as u64;
        let ram = scope.spawn(move || builder::prepare(memory, memory, bytes));
        (KernelImage::load(&file, &Limits::default()), ram.join())
    });
    let (image, ram) = (image?, ram.map_err(|_| "making the memory failed")??);
    eprintln!("boot: kernel unpacked after {:?}", start.elapsed());
    let ramdisk = if ramdisk == "-" { None } else { Some(Ramdisk::open(Path::new(ramdisk))?) };
    let order = Order {
        kernel: &image,
        ramdisk,
        command_line: &command_line.join(" "),
        memory_mib: memory,
        maxmem_mib: memory,
        vcpus: 1,
        domid: 1,
        uuid: [1; 16],
        cpuid: cpuid::Policy::default(),
    };
    let built = builder::build_in(&order, ram)?;
    drop(image);
    eprintln!("boot: built after {:?}", start.elapsed());
    let flags = std::env::var("XENOLITH_FLAGS").map_or(Ok(0), |text| text.parse())?;
    let memory = Arc::new(DomainMemory::new(built, clock.finish(), flags)?);
    eprintln!("boot: {:x?}", memory.setup);
    let empty = tempfile::tempdir()?;
    let order =
        space::Start { memory: &memory, name: "boot", empty_root: empty.path(), paused: false };
    let (mut group, walls) = space::start(&order)?;
    eprintln!("boot: started after {:?}, jail: {}", start.elapsed(), walls.names().join(" "));
    let time = CpuTime::new();
    serve(&memory, &mut group)?;
    eprintln!("boot: ended after {:?}, {:.2} s of CPU", start.elapsed(), time.seconds());
    Ok(())
}

fn serve(memory: &Arc<DomainMemory>, group: &mut space::Group) -> Result<(), Box<dyn Error>> {
    let doorbell = Doorbell::new(memory)?;
    let page = DomainPageView::new(&memory.arena);
    let mut console = ConsoleRing::new(memory.setup.console_mfn);
    let mut rings = [RingReader::new(Ring::Emergency), RingReader::new(Ring::Log)];
    let stdin = std::io::stdin();
    let mut open = true;
    loop {
        let mut fds = vec![PollFd::new(&doorbell, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }))?;
        let typed = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        doorbell.clear();
        let bells = page.take_bells();
        let output = console.take_output(&memory.ram);
        let mut out = std::io::stdout().lock();
        out.write_all(&output.bytes)?;
        let [emergency, log] = &mut rings;
        out.write_all(&emergency.take(page))?;
        out.flush()?;
        std::io::stderr().write_all(&log.take(page))?;
        let mut notify = output.notify;
        if typed {
            let mut bytes = [0; 256];
            let count = rustix::io::read(&stdin, &mut bytes)?;
            open = count > 0;
            notify |= console.put_input(&memory.ram, &bytes[..count]) > 0;
        }
        if notify {
            page.post(inbox::CONSOLE);
            if page.vcpu_state() == vcpu_state::RUNNING {
                group.interrupt(page.active_pid());
            }
        }
        if bells & bell::STORE != 0 {
            eprintln!("boot: the guest rang for xenstore, which this program lacks");
        }
        if bells & bell::SHUTDOWN != 0 {
            eprintln!("boot: the guest shut down, reason {}", page.shutdown_reason());
            return Ok(());
        }
        if bells & bell::CRASH != 0 {
            let record = page.crash_record();
            let reason: Vec<u8> = record.iter().copied().take_while(|byte| *byte != 0).collect();
            eprintln!("boot: crashed: {}", String::from_utf8_lossy(&reason));
            return Ok(());
        }
        while let Some((_, death)) = group.reap() {
            eprintln!("boot: {death}");
        }
        if group.is_empty() {
            return Ok(());
        }
    }
}
