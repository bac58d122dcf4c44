//! Writes the first inputs of each target: `write-seeds FOLDER` fills `FOLDER/TARGET/`. A target without
//! inputs here starts from nothing.

#[path = "../crates/kernel/tests/common/mod.rs"]
mod kernels;

use std::io;
use std::path::Path;

use kernels::{NotePlace, Spec, TINY};

fn main() -> io::Result<()> {
    let folder =
        std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: write-seeds FOLDER"))?;
    let folder = Path::new(&folder);
    kernel_files(folder)?;
    let plain = Spec::tiny().build();
    write(folder, "kernel_elf", "segment", &plain)?;
    let sections = Spec { place: NotePlace::Section, ..Spec::tiny() };
    write(folder, "kernel_elf", "section", &sections.build())?;
    write(folder, "kernel_notes", "linux", &kernels::linux_notes())?;
    monitor(folder)?;
    translate(folder)?;
    domain(folder)?;
    block(folder)?;
    for (kind, list) in [(0, &DISKS[..]), (1, &VIFS[..]), (2, &CHANNELS[..])] {
        for (i, text) in list.iter().enumerate() {
            let input = [&[kind], text.as_bytes()].concat();
            write(folder, "device_specs", &format!("{kind}-{i}"), &input)?;
        }
    }
    for (i, text) in HOST.iter().enumerate() {
        write(folder, "config_parse", &format!("host-{i}"), text.as_bytes())?;
    }
    for (i, line) in CONTROL.iter().enumerate() {
        let piece = [&[line.len() as u8 + 1], line.as_bytes(), b"\n"].concat();
        write(folder, "control_lines", &format!("{i}"), &piece)?;
    }
    Ok(())
}

/// Disks.
const DISKS: [&str; 10] = [
    "phy:vg0/serv1,xvda1,w",
    "file:/srv/serv1.img,sda1,w!",
    "tap:qcow2:/srv/a b.qcow2,xvda,r",
    "tap:aio:/srv/x.img,hdc:cdrom,r",
    ",hdc:cdrom,r",
    "/srv/a.img,raw,xvda,rw",
    "format=qcow2,vdev=xvdb,access=rw,backing=/srv/base.img,discard,target=/srv/a,b.img",
    "vdev=hdc,access=ro,devtype=cdrom,format=empty",
    "vdev=xvda,backendtype=phy,backend=cdrom,protocol=trusted,target=/x",
    "vdev=xvda,backendtype=file,backend=a=b,specification=xen,no-discard,target=/x",
];

/// Channels.
const CHANNELS: [&str; 2] =
    ["name=org.example.a,connection=socket,path=/run/a b.sock,backend=0", "connection=PTY, name=b=c"];

/// Network interfaces.
const VIFS: [&str; 5] = [
    "",
    "bridge=xenbr0, mac=00:16:3e:01:02:03, ip=10.0.0.2 10.1.0.0/16 2001:db8::/64,antispoof=yes",
    "type=vif,model=e1000,vifname=web0,backend=drv,rate=1MB/s@20ms,script=vif-route ip=x",
    "ports=2222:22 127.0.0.1:53:53/udp,mtu=9000,devid=3,untrusted",
    "accel=a,policy=p,label=l,netdev=eth0,forwarddev=f,vlan=10",
];

const HOST: [&str; 3] = [
    "[network]\nbridge = \"xenbr0\"\n[memory]\nreserve = 512\n[daemon]\nidle = 5\n",
    "# old\n(network-script 'network-bridge bridge=xenbr1')\n(vif-script vif-bridge)\n(dom0-min-mem 196)\n",
    "(xen-api-server ((9363 pam '^localhost$') (unix none)))",
];

/// Lines of the control protocol.
const CONTROL: [&str; 8] = [
    r#"{"request":"info"}"#,
    r#"{"request":"shutdown","reason":"halt"}"#,
    r#"{"request":"wait","until":"gone"}"#,
    r#"{"request":"sysrq","key":"h"}"#,
    r#"{"request":"memory-set","mib":64}"#,
    r#"{"request":"rename","name":"serv1"}"#,
    r#"{"response":"bytes","length":5}"#,
    r#"{"response":"ended","reason":"reboot","as":"restarted","domid":7}"#,
];

/// Steps of `monitor/harness/steps.rs`: each kind alone, and what was found once.
fn monitor(folder: &Path) -> io::Result<()> {
    for target in ["monitor_hypercalls", "monitor_tables", "monitor_emulate"] {
        // The first byte chooses the settings, the next of each step its kind.
        for settings in 0..4u8 {
            for kind in 0..16u8 {
                let step = [kind, kind.wrapping_mul(37), 7, 30, 0x41, 3, 250, 1, 32, 12, 0x86, 5];
                let steps = [&[settings], &step[..], &step, &step].concat();
                write(folder, target, &format!("kind-{settings}-{kind}"), &steps)?;
            }
        }
    }
    for (name, input) in MONITOR_FOUND {
        write(folder, "monitor_tables", name, input)?;
    }
    Ok(())
}

/// Inputs that showed faults of the monitor.
const MONITOR_FOUND: [(&str, &[u8]); 3] = [
    // A system call of a program at address 0.
    ("patch-at-zero", &[0x00, 0xc1, 0x0f]),
    // NX in an upper table, after which a page stayed executable.
    (
        "upper-nx",
        &[
            0x27, 0x2e, 0xc9, 0xee, 0, 0, 0, 0, 9, 0x4b, 0x4b, 0x4b, 0, 0, 0, 0, 0, 0, 0x97, 0x97,
            0x97, 8, 0x5b, 0, 0x7e, 0x77, 0x5c, 0x77, 0x76, 0x77, 0x7e, 0x5c, 0x5c, 0x5c, 0x5c, 0,
            0x1c,
        ],
    ),
    // A page for the kernel alone, given to a runner.
    (
        "supervisor-page",
        &[
            0x33, 0xff, 0x57, 0x2b, 0x2b, 0x72, 0x40, 0x40, 0x48, 0x40, 0x59, 0x59, 0x59, 0x28,
            0x59, 0x59, 0x59, 0x58, 0x59, 0x59, 0x40, 0x40, 0x43, 0x40, 0x40, 0x28, 0x40, 0x40,
            0x40, 0x40, 3, 0, 0x40, 0x40, 0x32,
        ],
    ),
];

/// Guest code behind four bytes of settings.
fn translate(folder: &Path) -> io::Result<()> {
    let codes: [(&str, &[u8]); 8] = [
        ("load", &[0x48, 0x8b, 0x07, 0x48, 0x89, 0x46, 0x08, 0xc3]),
        ("relative", &[0x48, 0x8b, 0x05, 1, 2, 3, 4, 0x0f, 0x84, 5, 0, 0, 0, 0xeb, 0xf0]),
        ("per-cpu", &[0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0, 0xff, 0xd0]),
        ("strings", &[0xf3, 0x48, 0xa5, 0xf3, 0xaa, 0xa6, 0xac]),
        ("stack", &[0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0xc9, 0xc2, 8, 0]),
        ("state", &[0x0f, 0xae, 0x27, 0x0f, 0xae, 0x2f, 0xc5, 0xfd, 0x6f, 0x07, 0x0f, 0x01, 0xef]),
        ("system", &[0x0f, 0x05, 0x0f, 0xa2, 0x0f, 0x20, 0xc0, 0xf4, 0xfa, 0xcd, 0x80]),
        ("evex", &[0x62, 0xf1, 0x7d, 0x48, 0x6f, 0x06, 0x62, 0xf1, 0x7d, 0x48, 0x7f, 0x07]),
    ];
    for (name, code) in codes {
        for flags in [0x00, 0x02, 0x08, 0x31, 0x80, 0x86] {
            let input = [&[flags, 4, 0xff, 0xff], code].concat();
            write(folder, "translate", &format!("{name}-{flags:02x}"), &input)?;
        }
    }
    Ok(())
}

/// Steps of `targets/domain_shared.rs`: a console's output, a request of the store's, the rest.
fn domain(folder: &Path) -> io::Result<()> {
    let output =
        [0, 0xd0, 0x01, 0x40, 0, 4, b'h', b'e', b'l', b'o', 1, 2, 3, 4, 4, 10, 2, b'x', b'y', 4];
    let read = [&[3, 5, 2][..], b"name\0", &[6, 1, 1, 2, 4, 6]].concat();
    let watch = [&[3, 6, 4][..], b"@x\0t\0", &[6, 3, 3, 1, 6]].concat();
    let record =
        [2, 7, 0, 5, b'o', b'o', b'p', 0x1b, b's', 9, 11, b'n', b'a', b'm', b'e', 0, 0, 0, 0, 6];
    let rings = [2, 0, 1, 4, 9, 9, 9, 9, 8, 2, 1, 1, 2, 0xff, 0xff, 8];
    write(folder, "domain_shared", "console", &output)?;
    write(folder, "domain_shared", "read", &read)?;
    write(folder, "domain_shared", "watch", &watch)?;
    write(folder, "domain_shared", "record", &record)?;
    write(folder, "domain_shared", "rings", &rings)
}

/// Requests of `targets/block_ring.rs`, of 40 bytes each behind a byte of settings; and a qcow2 image.
fn block(folder: &Path) -> io::Result<()> {
    for operation in 0..7u8 {
        let mut step = [0; 40];
        (step[0], step[1], step[2]) = (3, operation, 1);
        // The first segment: a frame, sectors 0 to 7.
        (step[25], step[30]) = (5, 7);
        for settings in [0, 1] {
            let steps = [&[settings], &step[..], &step, &step].concat();
            write(folder, "block_ring", &format!("{operation}-{settings}"), &steps)?;
        }
    }
    for settings in 0..4 {
        let image = [&[settings], &qcow2()[..]].concat();
        write(folder, "block_qcow2", &format!("empty-{settings}"), &image)?;
    }
    Ok(())
}

/// An image of 64 KiB in clusters of 512 bytes, nothing allocated: header, refcount table, refcounts,
/// L1 table (QEMU's docs/interop/qcow2.txt).
fn qcow2() -> Vec<u8> {
    let mut image = vec![0; 2048];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &9u32.to_be_bytes());
    put(24, &65536u64.to_be_bytes());
    put(36, &2u32.to_be_bytes());
    put(40, &1536u64.to_be_bytes());
    put(48, &512u64.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(512, &1024u64.to_be_bytes());
    put(1024, &[0, 1, 0, 1, 0, 1, 0, 1]);
    image
}

/// Every compression, alone and in a bzImage, and the data of the one block of an lzop file.
fn kernel_files(folder: &Path) -> io::Result<()> {
    let length = Spec::tiny().build().len() as u32;
    for (name, packed) in TINY {
        write(folder, "kernel_bzimage", &format!("{name}-alone"), packed)?;
        let image = kernels::bzimage(kernels::payload(packed), length);
        write(folder, "kernel_bzimage", name, &image)?;
        if name == "lzo" {
            // The end of the file is a word of zeros.
            let data = &packed[LZO_DATA.min(packed.len())..packed.len().saturating_sub(4)];
            let block = [&(length as u16).to_le_bytes(), data].concat();
            write(folder, "kernel_lzo", "block", &block)?;
            write(folder, "kernel_lzo", "file", packed)?;
        }
    }
    Ok(())
}

/// Where the data of the first block starts in a file of lzop without a name: after a header of 38
/// bytes, two lengths and two checksums.
const LZO_DATA: usize = 38 + 16;

fn write(folder: &Path, target: &str, name: &str, content: &[u8]) -> io::Result<()> {
    let folder = folder.join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), content)
}
